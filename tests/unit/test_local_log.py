"""The log's files: what a crash, a damaged byte, a missing file or a newer program leave, and what opening makes of it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import xxhash

from jadevectordb.adapters import local_log_active
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Barrier, Entry, Write
from jadevectordb.ports.log import Frame


def write(tag: str, metadata: bytes = b'{"n":1}', rows: int = 3) -> Entry:
    vectors = np.arange(rows * 8, dtype=np.float32).reshape(rows, 8) + len(tag)
    return Entry(Write([f"{tag}-{n}" for n in range(rows)], vectors, [metadata] * rows), 1)


def fill(path: Path, count: int, file_bytes: int = 64 << 20) -> list[list[bytes]]:
    """A closed log of `count` frames, of one or two entries; the entries' bytes frame by frame."""
    log = LocalLog(path, file_bytes=file_bytes)
    for n in range(count):
        log.append([(n % 2, write(f"w{n}")), *([(7, Entry(Barrier(), n))] if n % 3 == 0 else [])])
    frames = contents(log)
    log.close()
    return frames


def contents(log: LocalLog) -> list[list[bytes]]:
    return [[encode(one.entry) for one in frame] for frame in log.read({})]


def reopened(path: Path, file_bytes: int = 64 << 20) -> list[list[bytes]]:
    log = LocalLog(path, file_bytes=file_bytes)
    try:
        return contents(log)
    finally:
        log.close()


def files(path: Path) -> list[Path]:
    return sorted(path.glob("*.log"))


def flip(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ (1 << bit)]))


def frame_offsets(path: Path) -> list[int]:
    data = path.read_bytes()
    return [at for at in range(0, len(data), 64) if data[at : at + 4] == b"jFrm"]


def assert_corrupt(path: Path, file: Path, at_least: int = 0, at_most: int = 1 << 40) -> None:
    with pytest.raises(JadeError) as caught:
        reopened(path)
    assert caught.value.code is ErrorCode.CORRUPT, caught.value
    assert caught.value.details["file"] == str(file)
    assert str(file) in caught.value.message and f"byte {caught.value.details['offset']}" in caught.value.message
    assert at_least <= caught.value.details["offset"] <= at_most


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_are_named_by_their_first_frame_and_give_back_reserved_space_on_close(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1500)
    for n in range(20):
        log.append([(0, write(f"w{n}"))])
    assert log.bytes_on_disk() >= sum(path.stat().st_size for path in files(tmp_path))
    log.close()
    names = [path.name for path in files(tmp_path)]
    assert names[0] == "00000000000000000001.log" and len(names) > 3
    for path in files(tmp_path):
        assert path.stat().st_size <= 1500
        data = path.read_bytes()
        assert data[frame_offsets(path)[-1] :].rstrip(b"\0")  # ends with a frame, not with reserved zeros
    assert sorted(p.name for p in tmp_path.iterdir()) == [*names, "committed"]


def test_a_frame_larger_than_a_file(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1500)
    big = [(n % 4, write(f"big{n}", rows=40)) for n in range(50)]
    log.append([(0, write("small"))])
    log.append(big)
    log.append([(0, write("small"))])
    log.close()
    sizes = [len(frame) for frame in reopened(tmp_path, 1500)]
    assert sizes == [1, 50, 1]
    assert len(files(tmp_path)) == 3


def test_a_frame_of_more_pieces_than_one_write_takes(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    assert log.append([(0, Entry(Barrier(), n)) for n in range(3000)]) == list(range(1, 3001))
    log.close()
    assert [len(frame) for frame in reopened(tmp_path)] == [3000]


def test_a_small_log_takes_little_disk(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    log.append([(0, write("a"))])
    assert log.bytes_on_disk() < 2 << 20
    log.close()
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2048


def test_truncate_leaves_a_small_active_file_and_replaces_a_large_one(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, rotate_bytes_min=5000)
    log.append([(0, write("a"))])
    log.truncate({0: 1})
    assert (log.first(0), len(files(tmp_path))) == (1, 1)
    for n in range(20):
        log.append([(0, write(f"a{n}")), (1, write(f"a{n}"))])
    log.truncate({0: 21})  # shard 1 still needs it
    assert log.first(0) == 1
    log.truncate({0: 21, 1: 20})
    assert (log.first(0), log.first(1), len(files(tmp_path))) == (22, 21, 1)
    log.close()


def test_truncation_that_a_crash_cut_short_is_finished(tmp_path: Path) -> None:
    fill(tmp_path / "log", 30, 1200)
    shutil.copytree(tmp_path / "log", tmp_path / "before")
    log = LocalLog(tmp_path / "log", file_bytes=1200)
    log.truncate({0: 10, 1: 10, 7: 7})
    expected = contents(log)
    log.close()
    removed = [path for path in files(tmp_path / "before") if not (tmp_path / "log" / path.name).exists()]
    assert len(removed) > 2
    for path in removed[-2:]:  # the oldest went first, these are still there
        shutil.copy(path, tmp_path / "log")
    assert reopened(tmp_path / "log", 1200) == expected
    assert not any((tmp_path / "log" / path.name).exists() for path in removed)


def test_an_unfinished_new_file_is_removed(tmp_path: Path) -> None:
    expected = fill(tmp_path, 5)
    (tmp_path / "00000000000000000006.log.new").write_bytes(b"JADE")
    assert reopened(tmp_path) == expected
    assert len(list(tmp_path.iterdir())) == 2


def test_a_copy_opens_alone_and_both_go_on_independently(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log", file_bytes=1200)
    for n in range(30):
        log.append([(0, write(f"w{n}"))])
    expected = contents(log)
    log.copy_to(tmp_path / "deep" / "copy")
    log.append([(0, write("after"))])
    log.truncate({0: 31})
    copy = LocalLog(tmp_path / "deep" / "copy", file_bytes=1200)
    assert contents(copy) == expected
    assert copy.append([(0, write("other"))]) == [31]
    assert log.last(0) == 31 and contents(copy)[-1] == [encode(write("other"))]
    with pytest.raises(JadeError, match="not empty") as caught:
        log.copy_to(tmp_path / "deep" / "copy")
    assert caught.value.code is ErrorCode.ALREADY_EXISTS
    copy.close()
    log.close()
    assert reopened(tmp_path / "deep" / "copy", 1200) == [*expected, [encode(write("other"))]]


def test_copying_while_others_append_and_truncate(tmp_path: Path) -> None:
    log = LocalLog(tmp_path / "log", file_bytes=1200)
    log.append([(0, write("first"))])
    stop = threading.Event()

    def appender() -> None:
        while not stop.is_set():
            [sequence] = log.append([(0, write("w"))])
            if sequence % 40 == 0:
                log.truncate({0: sequence - 20})

    thread = threading.Thread(target=appender)
    thread.start()
    for n in range(10):
        least = log.last(0)
        log.copy_to(tmp_path / f"copy{n}")
        copy = LocalLog(tmp_path / f"copy{n}", file_bytes=1200)
        found = [one.sequence for frame in copy.read({0: copy.first(0)}) for one in frame]
        assert found == list(range(copy.first(0), copy.last(0) + 1)) and copy.last(0) >= least
        copy.close()
    stop.set()
    thread.join()
    log.close()


# --- torn tails -------------------------------------------------------------------------------------------------------


def crash_states(tmp_path: Path) -> tuple[Path, Path, int, int, list[list[bytes]]]:
    """Folder as it was after 3 acknowledged frames, the log file's bytes with a fourth, where that begins and ends."""
    log = LocalLog(tmp_path / "log")
    for n in range(3):
        log.append([(0, write(f"w{n}")), (1, write(f"v{n}"))])
    shutil.copytree(tmp_path / "log", tmp_path / "acknowledged")
    start = log._active.end
    log.append([(0, write("last", rows=5)), (1, Entry(Barrier(), 4))])
    end = log._active.end
    expected = contents(log)
    shutil.copytree(tmp_path / "log", tmp_path / "written")
    log.close()
    return tmp_path / "acknowledged", files(tmp_path / "written")[0], start, end, expected


def test_a_write_cut_short_at_any_byte_is_cut_off(tmp_path: Path) -> None:
    acknowledged, written, start, end, expected = crash_states(tmp_path)
    data = written.read_bytes()
    used_end = len(data[:end].rstrip(b"\0"))  # then padding
    for cut in [*range(start, end, 37), start + 64, used_end - 1, used_end, end - 1, end]:
        for rest in (b"", bytes(len(data) - cut), b"\x5a" * 100):
            path = tmp_path / "crashed"
            shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(acknowledged, path)
            files(path)[0].write_bytes(data[:cut] + rest)
            log = LocalLog(path)
            whole = cut >= used_end and len(data[:cut] + rest) >= end
            found = contents(log)
            assert found == (expected if whole else expected[:3]), cut
            if not whole:
                assert log.recovered_bytes == len((data[start:cut] + rest).rstrip(b"\0"))
            assert log.append([(0, write("next")), (1, write("next"))]) == [len(found) + 1, len(found) + 1]
            log.close()
            assert len(reopened(path)) == len(found) + 1


def test_a_write_whose_blocks_arrived_out_of_order_is_cut_off(tmp_path: Path) -> None:
    """A power cut may lose the first block of a write and keep the rest."""
    acknowledged, written, start, end, expected = crash_states(tmp_path)
    data = bytearray(written.read_bytes())
    data[start : start + 128] = bytes(128)
    files(acknowledged)[0].write_bytes(data[:end])
    log = LocalLog(acknowledged)
    assert contents(log) == expected[:3]
    assert log.recovered_bytes == len(data[start:end].rstrip(b"\0"))
    log.close()


def test_a_group_of_frames_that_lost_its_first_is_cut_off_whole(tmp_path: Path) -> None:
    """Frames of one group are synced together: none was acknowledged, so the whole second one vouches for nothing."""
    log = LocalLog(tmp_path / "log")
    log.append([(0, write("acknowledged"))])
    shutil.copy(tmp_path / "log" / "committed", tmp_path / "committed")
    start = log._active.end
    release = hold_up_the_next_commit(log)
    threads = [threading.Thread(target=log.append, args=([(0, write(f"w{n}"))],)) for n in range(4)]
    run_together(log, threads, release)
    assert log.sync_count < 1 + 4
    end = log._active.end
    offsets = [at for at in frame_offsets(files(tmp_path / "log")[0]) if start <= at < end]
    assert len(offsets) == 4
    log.close()
    shutil.copy(tmp_path / "committed", tmp_path / "log" / "committed")
    # the held-up frame stood alone; the other three are one group, and the second of the four is its first
    flip(files(tmp_path / "log")[0], offsets[1] + 200)
    reopened_log = LocalLog(tmp_path / "log")
    assert reopened_log.last(0) == 2
    reopened_log.close()


def hold_up_the_next_commit(log: LocalLog) -> Callable[[], None]:
    """Keeps the next leader from writing until the function returned is called."""
    log._writing.acquire()
    return log._writing.release


def run_together(log: LocalLog, threads: list[threading.Thread], release: Callable[[], None]) -> None:
    """Start threads that append; let the first lead alone and the others meet in the queue behind it."""
    threads[0].start()
    while not (log._group._has_leader and not log._group._queue):
        threads[0].join(0.001)
    for thread in threads[1:]:
        thread.start()
    while len(log._group._queue) < len(threads) - 1:
        threads[0].join(0.001)
    release()
    for thread in threads:
        thread.join()


def test_user_data_that_looks_like_a_log_is_not_taken_for_one(tmp_path: Path) -> None:
    """Metadata with a whole log file inside: when its frame is torn, the frames inside it must not count."""
    fill(tmp_path / "other", 5)
    image = files(tmp_path / "other")[0].read_bytes()
    log = LocalLog(tmp_path / "log")
    log.append([(0, write("a"))])
    shutil.copy(tmp_path / "log" / "committed", tmp_path / "committed")
    start = log._active.end
    own_image = files(tmp_path / "log")[0].read_bytes()[:start]
    log.append(
        [(0, write("evil", metadata=bytes(pad) + (image if pad % 2 else own_image), rows=1)) for pad in range(64)]
    )
    log.close()
    shutil.copy(tmp_path / "committed", tmp_path / "log" / "committed")
    flip(files(tmp_path / "log")[0], start + 70)
    log = LocalLog(tmp_path / "log")
    assert log.last(0) == 1 and log.recovered_bytes > 0
    log.close()


def test_recovery_is_final(tmp_path: Path) -> None:
    """What was cut off once does not come back when the log grows over its place again."""
    acknowledged, written, start, _, expected = crash_states(tmp_path)
    data = bytearray(written.read_bytes())
    data[start + 100] ^= 1
    files(acknowledged)[0].write_bytes(data)
    assert reopened(acknowledged) == expected[:3]
    assert files(acknowledged)[0].stat().st_size == start


# --- damage -----------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_corruption_or_harmless(tmp_path: Path) -> None:
    expected = fill(tmp_path / "log", 12, 1200)
    paths = files(tmp_path / "log")
    assert len(paths) > 2
    for path in paths:
        data = path.read_bytes()
        size = len(data)
        for offset in range(0, size, 19):
            flip(path, offset, offset % 8)
            try:
                found = reopened(tmp_path / "log", 1200)
                assert found == expected and data[offset] == 0, "only padding is harmless"
            except JadeError as error:
                assert error.code is ErrorCode.CORRUPT, error
                assert error.details["file"] == str(path) and 0 <= error.details["offset"] <= size
                assert offset - 1200 <= error.details["offset"] <= offset, "the place named is where the damage is"
            finally:
                flip(path, offset, offset % 8)
    assert reopened(tmp_path / "log", 1200) == expected


def test_damage_to_the_last_frame_is_not_taken_for_a_torn_tail(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    [path] = files(tmp_path)
    last = frame_offsets(path)[-1]
    size = path.stat().st_size
    for offset in (last, last + 20, last + 70, last + 130, size - 64):
        flip(path, offset)
        assert_corrupt(tmp_path, path, last, offset)
        flip(path, offset)
    assert len(reopened(tmp_path)) == 4


@pytest.mark.parametrize("damage", ["missing", "empty", "flipped", "garbage"])
def test_without_the_committed_record_nothing_is_lost(tmp_path: Path, damage: str) -> None:
    expected = fill(tmp_path, 10, 1200)
    record = tmp_path / "committed"
    match damage:
        case "missing":
            record.unlink()
        case "empty":
            record.write_bytes(b"")
        case "flipped":
            flip(record, 30)
        case "garbage":
            record.write_bytes(os.urandom(100))
    assert reopened(tmp_path, 1200) == expected
    assert reopened(tmp_path, 1200) == expected
    # and frames before the last are still known to have been acknowledged
    record.unlink()
    path = files(tmp_path)[-1]
    offsets = frame_offsets(path)
    if len(offsets) > 1:
        flip(path, offsets[0] + 70)
        assert_corrupt(tmp_path, path, offsets[0])


def test_a_frame_that_a_later_one_vouches_for_is_corruption_even_without_the_record(tmp_path: Path) -> None:
    fill(tmp_path, 4)
    (tmp_path / "committed").unlink()
    [path] = files(tmp_path)
    for frame_offset in frame_offsets(path)[:-1]:
        flip(path, frame_offset + 5)
        assert_corrupt(tmp_path, path, frame_offset, frame_offset)
        flip(path, frame_offset + 5)


def test_an_older_record_is_no_harm(tmp_path: Path) -> None:
    """After a power cut the record may lag behind the log."""
    log = LocalLog(tmp_path, file_bytes=1200)
    log.append([(0, write("a"))])
    old = (tmp_path / "committed").read_bytes()
    for n in range(20):
        log.append([(0, write(f"w{n}"))])
    log.close()
    (tmp_path / "committed").write_bytes(old)
    assert len(reopened(tmp_path, 1200)) == 21


def test_a_missing_file_is_corruption_that_names_it(tmp_path: Path) -> None:
    fill(tmp_path / "log", 30, 1200)
    paths = files(tmp_path / "log")
    for path in paths:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(JadeError, match="the file is missing") as caught:
            reopened(tmp_path / "log", 1200)
        assert caught.value.code is ErrorCode.CORRUPT and caught.value.details["file"] == str(path)
        path.write_bytes(data)
    for path in paths:
        path.unlink()
    with pytest.raises(JadeError, match="the file is missing"):
        reopened(tmp_path / "log")


def test_a_shortened_or_lengthened_file_is_corruption(tmp_path: Path) -> None:
    expected = fill(tmp_path, 10, 1200)
    for path in files(tmp_path):
        data = path.read_bytes()
        for size in (0, 10, 100, len(data) - 64, len(data) - 1, *frame_offsets(path)):
            path.write_bytes(data[:size])
            assert_corrupt(tmp_path, path, 0, size)
        path.write_bytes(data)
    oldest = files(tmp_path)[0]
    data = oldest.read_bytes()
    oldest.write_bytes(data + b"x")
    assert_corrupt(tmp_path, oldest, len(data), len(data))
    oldest.write_bytes(data)
    assert reopened(tmp_path, 1200) == expected


def test_files_and_frames_that_changed_places_are_corruption(tmp_path: Path) -> None:
    fill(tmp_path, 12, 1200)
    one, other = files(tmp_path)[:2]
    data = one.read_bytes(), other.read_bytes()
    one.write_bytes(data[1])
    other.write_bytes(data[0])
    assert_corrupt(tmp_path, one)
    one.write_bytes(data[0])
    other.write_bytes(data[1])
    offsets = [*frame_offsets(one), len(data[0])]
    (a, b, c) = offsets[:3]
    one.write_bytes(data[0][:a] + data[0][b:c] + data[0][a:b] + data[0][c:])
    assert_corrupt(tmp_path, one, a, b)


def test_damage_after_opening_is_found_when_read(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    for n in range(5):
        log.append([(0, write(f"w{n}"))])
    [path] = files(tmp_path)
    at = frame_offsets(path)[2]
    flip(path, at + 200)
    frames = log.read({})
    assert [frame[0].sequence for _, frame in zip(range(2), frames, strict=False)] == [1, 2]
    with pytest.raises(JadeError, match="entry 3 of shard 0 does not match its checksum") as caught:
        next(frames)
    assert caught.value.details == {"file": str(path), "offset": at + 64 + 48}
    flip(path, at + 200)
    log.close()


def test_a_newer_format_is_refused_as_such(tmp_path: Path) -> None:
    expected = fill(tmp_path, 3)
    [path] = files(tmp_path)
    original = path.read_bytes()
    # a newer file: the preamble's layout never changes
    data = bytearray(original)
    data[8] = 2
    data[24:32] = xxhash.xxh3_64_intdigest(bytes(data[:24])).to_bytes(8, "little")
    path.write_bytes(data)
    assert_too_new(tmp_path, "the log file has format version 2")
    # a newer frame in a file of ours
    data = bytearray(original)
    at = frame_offsets(path.write_bytes(original) and path)[2]
    data[at + 4] = 9
    salt = int.from_bytes(data[16:24], "little")
    data[at + 56 : at + 64] = xxhash.xxh3_64_intdigest(bytes(data[at : at + 56]), salt).to_bytes(8, "little")
    path.write_bytes(data)
    assert_too_new(tmp_path, "a log frame has format version 9")
    path.write_bytes(original)
    # a newer committed record
    record = bytearray((tmp_path / "committed").read_bytes())
    record[8] = 3
    record[40:48] = xxhash.xxh3_64_intdigest(bytes(record[:40])).to_bytes(8, "little")
    kept = (tmp_path / "committed").read_bytes()
    (tmp_path / "committed").write_bytes(record)
    assert_too_new(tmp_path, "committed record has format version 3")
    (tmp_path / "committed").write_bytes(kept)
    assert reopened(tmp_path) == expected


def assert_too_new(path: Path, words: str) -> None:
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(JadeError, match=words) as caught:
        reopened(path)
    assert caught.value.code is ErrorCode.FORMAT_TOO_NEW
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before


def test_refusing_to_open_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, 12, 1200)
    flip(files(tmp_path)[-1], 300)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(JadeError):
        reopened(tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# --- disks, signals, subscribers --------------------------------------------------------------------------------------


def test_a_sync_that_fails_makes_the_log_refuse_until_it_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path)
    delivered: list[Frame] = []
    log.subscribe(delivered.append)
    log.append([(0, write("a"))])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(local_log_active, "sync_data", fail)
    with pytest.raises(JadeError, match="open the database anew") as caught:
        log.append([(0, write("b"))])
    assert caught.value.code is ErrorCode.IO_ERROR
    monkeypatch.undo()
    for call in (lambda: log.append([(0, write("c"))]), lambda: log.truncate({0: 1})):
        with pytest.raises(JadeError, match="open the database anew"):
            call()
    assert log.last(0) == 1 and len(delivered) == 1
    assert len(contents(log)) == 1  # what is known to be durable can still be read
    log.close()
    log = LocalLog(tmp_path)
    assert log.last(0) in (1, 2)  # the frame is there whole or not at all
    [sequence] = log.append([(0, write("d"))])
    assert sequence == log.last(0)
    log.close()


def test_an_undo_that_fails_makes_the_log_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(tmp_path)
    log.append([(0, write("a"))])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local_log_active, "write_all", full)
    monkeypatch.setattr(os, "ftruncate", full)
    with pytest.raises(JadeError) as caught:
        log.append([(0, write("b"))])
    assert caught.value.code is ErrorCode.IO_ERROR
    monkeypatch.undo()
    with pytest.raises(JadeError) as caught:
        log.append([(0, write("b"))])
    assert caught.value.code is ErrorCode.IO_ERROR
    log.close()
    assert len(reopened(tmp_path)) == 1


def test_a_name_that_could_not_be_made_durable_makes_the_log_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file must not grow once its successor may exist: a later opening would take only what that one knows."""
    log = LocalLog(tmp_path, file_bytes=1000)
    log.append([(0, write("a"))])

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: real(fd) if not Path(f"/proc/self/fd/{fd}").is_dir() else fail(fd))
    with pytest.raises(JadeError) as caught:
        log.append([(0, write("b", rows=10))])
    assert caught.value.code is ErrorCode.IO_ERROR
    monkeypatch.undo()
    with pytest.raises(JadeError):
        log.append([(0, write("b"))])
    log.close()
    assert len(reopened(tmp_path)) == 1


def test_a_file_that_cannot_be_begun_costs_only_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LocalLog(tmp_path, file_bytes=1000)
    log.append([(0, write("a"))])

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local_log_active, "write_all", full)
    for _ in range(2):
        with pytest.raises(JadeError, match="nothing was written") as caught:
            log.append([(0, write("b", rows=10))])
        assert caught.value.code is ErrorCode.DISK_FULL
    monkeypatch.undo()
    assert log.append([(0, write("b", rows=10))]) == [2]
    log.close()
    assert len(reopened(tmp_path)) == 2


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A program that a shell started in the background ignores Ctrl-C, and tests may be run by one."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_during_an_append_waits_until_it_is_done(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    delivered: list[Frame] = []

    def handler(frame: Frame) -> None:
        signal.raise_signal(signal.SIGINT)
        delivered.append(frame)

    log.subscribe(handler)
    with pytest.raises(KeyboardInterrupt):
        log.append([(0, write("a"))])
    assert len(delivered) == 1 and log.last(0) == 1
    with pytest.raises(KeyboardInterrupt):
        log.append([(0, write("b"))])
    assert len(delivered) == 2
    log.close()


def test_a_subscriber_that_fails_stops_the_log_but_loses_nothing(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)

    def handler(frame: Frame) -> None:
        raise ZeroDivisionError("a bug")

    log.subscribe(handler)
    with pytest.raises(ZeroDivisionError):
        log.append([(0, write("a"))])
    with pytest.raises(JadeError, match="applying it failed"):
        log.append([(0, write("b"))])
    log.close()
    assert reopened(tmp_path) == [[encode(write("a"))]]


def test_close_waits_for_what_is_being_delivered(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    entered, leave = threading.Event(), threading.Event()
    delivered: list[Frame] = []

    def handler(frame: Frame) -> None:
        entered.set()
        assert leave.wait(60)
        delivered.append(frame)

    log.subscribe(handler)
    appender = threading.Thread(target=log.append, args=([(0, write("a"))],))
    appender.start()
    assert entered.wait(60)
    closer = threading.Thread(target=log.close)
    closer.start()
    while not log._is_closing:
        closer.join(0.001)
    with pytest.raises(JadeError, match="closed"):
        log.read({})
    assert closer.is_alive()
    leave.set()
    closer.join()
    appender.join()
    assert len(delivered) == 1


def test_close_is_not_refused_together_with_an_append_that_came_too_late(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    entered, leave = threading.Event(), threading.Event()
    delivered: list[Frame] = []
    raised: dict[str, JadeError] = {}

    def handler(frame: Frame) -> None:
        entered.set()
        assert leave.wait(60)
        delivered.append(frame)

    def run(name: str, call: Callable[[], object]) -> threading.Thread:
        def catching() -> None:
            try:
                call()
            except JadeError as error:
                raised[name] = error

        thread = threading.Thread(target=catching)
        thread.start()
        return thread

    log.subscribe(handler)
    threads = [run("first", lambda: log.append([(0, write("a"))]))]
    assert entered.wait(60)  # the first is being delivered
    threads.append(run("second", lambda: log.append([(0, write("b"))])))
    while log.last(0) < 2:  # the second is durable and waits to be delivered
        threads[-1].join(0.001)
    threads.append(run("late", lambda: log.append([(0, write("c"))])))
    while len(log._group._queue) < 1:
        threads[-1].join(0.001)
    threads.append(run("close", log.close))
    while len(log._group._queue) < 2:
        threads[-1].join(0.001)
    leave.set()
    for thread in threads:
        thread.join()
    assert {name: error.code for name, error in raised.items()} == {"late": ErrorCode.CLOSED}
    assert len(delivered) == 2


def test_an_entry_that_cannot_be_encoded_harms_nobody(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    with pytest.raises(JadeError) as caught:
        log.append([(0, write("fine")), (0, write("\ud800"))])
    assert caught.value.code is ErrorCode.INVALID_ID
    assert log.append([(0, write("a"))]) == [1]
    log.close()


def test_callers_that_wait_share_one_sync(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    delivered: list[Frame] = []
    log.subscribe(delivered.append)
    release = hold_up_the_next_commit(log)
    threads = [threading.Thread(target=log.append, args=([(0, write(f"w{n}"))],)) for n in range(16)]
    run_together(log, threads, release)
    assert log.sync_count == 2  # the first alone, the fifteen others together
    assert [frame[0].sequence for frame in delivered] == list(range(1, 17))
    log.close()
    assert len(reopened(tmp_path)) == 16


def test_a_group_that_fails_fails_for_each_of_its_callers_and_for_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LocalLog(tmp_path)
    errors: list[JadeError] = []

    def append(tag: str) -> None:
        try:
            log.append([(0, write(tag))])
        except JadeError as error:
            errors.append(error)

    real = local_log_active.write_all
    calls = []

    def full_the_second_time(fd: int, pieces: list[bytes | bytearray | memoryview], offset: int) -> int:
        calls.append(offset)
        if len(calls) == 2:
            real(fd, pieces, offset)
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, pieces, offset)

    monkeypatch.setattr(local_log_active, "write_all", full_the_second_time)
    release = hold_up_the_next_commit(log)
    threads = [threading.Thread(target=append, args=(f"w{n}",)) for n in range(9)]
    run_together(log, threads, release)
    assert [error.code for error in errors] == [ErrorCode.DISK_FULL] * 8
    assert len(set(map(id, errors))) == 8
    assert log.last(0) == 1
    assert log.append([(0, write("later"))]) == [2]
    log.close()
    assert [len(frame) for frame in reopened(tmp_path)] == [1, 1]
