"""LocalLog against a list, as a state machine: appends, truncations, reopenings, copies, crashes, damage, in any order.

A crash is made from two copies of the folder, before and after an append: of the bytes that the append added, a part is
kept, cut, zeroed or overwritten, and the committed record is the one from before. Nothing acknowledged may be missing,
and the frame that was being written is there whole or not at all.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Barrier, Delete, Entry, Write

FILE_BYTES = 1500
SHARDS = (0, 1, 5)

TIME = st.integers(0, 40)


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[int, Entry]]:
    made = []
    for shard in draw(st.lists(st.sampled_from(SHARDS), min_size=1, max_size=4)):
        match draw(st.integers(0, 3)):
            case 0:
                operation = Barrier()
            case 1:
                operation = Delete(draw(st.lists(st.sampled_from("abc"), max_size=3)))
            case size:
                count = size * draw(st.integers(1, 12))
                vectors = np.full((count, 3), draw(st.integers(0, 9)), np.float32)
                operation = Write([str(n) for n in range(count)], vectors, [b"{}"] * count)
        made.append((shard, Entry(operation, draw(TIME))))
    return made


class LogMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="log-machine-"))
        self.path = self.root / "log"
        self.frames: list[list[tuple[int, int, int, bytes]]] = []  # shard, sequence, time, bytes; all ever acknowledged
        self.next = dict.fromkeys(SHARDS, 1)
        self.not_needed = dict.fromkeys(SHARDS, 0)
        self.records: list[bytes] = []  # committed records since the last one that was synced
        self.copies = 0
        self.start()

    @staticmethod
    def open(path: Path) -> LocalLog:
        return LocalLog(path, file_bytes=FILE_BYTES, rotate_bytes_min=400)

    def start(self) -> None:
        self.log = self.open(self.path)
        self.delivered: list[list[tuple[int, int]]] = []
        self.expect_delivered: list[list[tuple[int, int]]] = []
        self.log.subscribe(lambda frame: self.delivered.append([(d.shard, d.sequence) for d in frame]))
        self.records = [(self.path / "committed").read_bytes()]

    def copy_of_folder(self) -> Path:
        self.copies += 1
        return Path(shutil.copytree(self.path, self.root / f"copy{self.copies}"))

    def remember(self, appended: list[tuple[int, Entry]], sequences: list[int]) -> None:
        for (shard, _), sequence in zip(appended, sequences, strict=True):
            assert sequence == self.next[shard]
            self.next[shard] += 1
        self.frames.append([(s, q, e.time, encode(e)) for (s, e), q in zip(appended, sequences, strict=True)])

    @rule(appended=entries())
    def append(self, appended: list[tuple[int, Entry]]) -> None:
        sequences = self.log.append(appended)
        self.remember(appended, sequences)
        self.expect_delivered.append([(shard, q) for (shard, _), q in zip(appended, sequences, strict=True)])
        self.records.append((self.path / "committed").read_bytes())

    @rule(part=st.dictionaries(st.sampled_from(SHARDS), st.floats(0, 1), max_size=3))
    def truncate(self, part: dict[int, float]) -> None:
        up_to = {shard: round(share * (self.next[shard] - 1)) for shard, share in part.items()}
        before = self.log.first(0), self.log.first(1), self.log.first(5)
        self.log.truncate(up_to)
        if before != (self.log.first(0), self.log.first(1), self.log.first(5)):
            self.records = [(self.path / "committed").read_bytes()]
        for shard, sequence in up_to.items():
            self.not_needed[shard] = max(self.not_needed[shard], sequence)

    @rule()
    def reopen(self) -> None:
        self.log.close()
        self.start()
        assert self.log.recovered_bytes == 0

    @rule(data=st.data())
    def lose_power(self, data: st.DataObject) -> None:
        """The log's bytes are on the disk, the record may be any written since it was last synced, or a damaged one."""
        folder = self.copy_of_folder()
        record = data.draw(st.sampled_from([*self.records, b"", b"damaged" * 9]))
        (folder / "committed").write_bytes(record)
        self.continue_in(folder)
        assert self.log.recovered_bytes == 0

    def continue_in(self, folder: Path) -> None:
        self.log.close()
        shutil.rmtree(self.path)
        folder.rename(self.path)
        self.start()

    @rule(appended=entries(), data=st.data())
    def crash_in_append(self, appended: list[tuple[int, Entry]], data: st.DataObject) -> None:
        before = self.copy_of_folder()
        start = self.log._active.end
        sequences = self.log.append(appended)
        end = self.log._active.end
        after = self.copy_of_folder()
        [last] = sorted(after.glob("*.log"))[-1:]
        is_new_file = not (before / last.name).exists()
        if is_new_file:
            start = self.log._active.header_bytes
        full = last.read_bytes()[:end]
        written = bytearray(full)
        at = data.draw(st.integers(start, end))
        match data.draw(st.sampled_from(["cut", "zeros", "garbage", "hole", "whole", "no file"])):
            case "cut":
                del written[at:]
            case "zeros":
                written[at:] = bytes(end - at + 64)
            case "garbage":
                written[at:] = b"\x5a" * (end - at + 10)
            case "hole":
                hole_end = data.draw(st.integers(at, end))
                written[at:hole_end] = bytes(hole_end - at)
            case "no file" if is_new_file:
                written.clear()
        if written:
            last.write_bytes(written)
        else:
            last.unlink()
        shutil.copy(before / "committed", after / "committed")
        shutil.rmtree(before)
        self.continue_in(after)
        used_end = len(full.rstrip(b"\0"))  # then padding
        if len(written) >= end and written[:used_end] == full[:used_end]:
            self.remember(appended, sequences)

    @rule(data=st.data())
    def damage_a_copy(self, data: st.DataObject) -> None:
        folder = self.root / "damaged"
        if data.draw(st.booleans()):
            self.log.copy_to(folder)
        else:
            shutil.copytree(self.path, folder)
        try:
            file = data.draw(st.sampled_from(sorted(folder.iterdir())))
            content = bytearray(file.read_bytes())
            limit = len(bytes(content).rstrip(b"\0"))  # beyond: reserved ahead, not acknowledged
            at = (
                data.draw(st.integers(0, 2**20 - 1)) * limit >> 20
            )  # the limit depends on random salts, the draw must not
            content[at] ^= 1 << data.draw(st.integers(0, 7))
            file.unlink()  # it may be a hard link
            file.write_bytes(content)
            self.check_damaged(folder, file, at)
        finally:
            shutil.rmtree(folder)

    def check_damaged(self, folder: Path, file: Path, at: int) -> None:
        log = None
        try:
            log = self.open(folder)
            assert self.read_all(log) == self.kept(log)
        except JadeError as error:
            assert error.code is ErrorCode.CORRUPT and file.name != "committed", error
            assert error.details["file"] == str(file) and 0 <= error.details["offset"] <= at
        finally:
            if log is not None:
                log.close()

    # --- what must always hold ----------------------------------------------------------------------------------------

    def read_all(self, log: LocalLog) -> list[list[tuple[int, int, int, bytes]]]:
        return [[(d.shard, d.sequence, d.entry.time, encode(d.entry)) for d in frame] for frame in log.read({})]

    def kept(self, log: LocalLog) -> list[list[tuple[int, int, int, bytes]]]:
        """The frames that should be there, judged by the first sequences the log says it keeps: whole frames."""
        first = {shard: log.first(shard) for shard in SHARDS}
        kept = [frame for frame in self.frames if all(q >= first[shard] for shard, q, _, _ in frame)]
        gone = [frame for frame in self.frames if frame not in kept]
        assert all(q <= self.not_needed[shard] for frame in gone for shard, q, _, _ in frame)
        assert kept == self.frames[len(gone) :]
        return kept

    @invariant()
    def same_as_the_list(self) -> None:
        assert self.read_all(self.log) == self.kept(self.log)
        for shard in SHARDS:
            assert self.log.last(shard) == self.next[shard] - 1
            assert self.log.first(shard) <= self.not_needed[shard] + 1
        assert self.delivered == self.expect_delivered

    @rule(asked=st.dictionaries(st.sampled_from(SHARDS), st.floats(0, 1), max_size=3))
    def read_from(self, asked: dict[int, float]) -> None:
        start = {}
        for shard, share in asked.items():
            first = self.log.first(shard)
            start[shard] = first + round(share * (self.next[shard] - first))
        expected = [[one for one in frame if one[1] >= start.get(one[0], 1)] for frame in self.kept(self.log)]
        found = [[(d.shard, d.sequence, d.entry.time, encode(d.entry)) for d in f] for f in self.log.read(start)]
        assert found == [frame for frame in expected if frame]

    @rule(shard=st.sampled_from(SHARDS), time=TIME)
    def look_up_a_time(self, shard: int, time: int) -> None:
        hits = [q for frame in self.kept(self.log) for s, q, t, _ in frame if s == shard and t <= time]
        assert self.log.sequence_at(shard, time) == max(hits, default=self.log.first(shard) - 1)

    def teardown(self) -> None:
        self.log.close()
        shutil.rmtree(self.root)


TestLocalLogAgainstAList = LogMachine.TestCase
TestLocalLogAgainstAList.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
