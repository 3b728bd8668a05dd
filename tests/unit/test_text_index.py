"""Text analysis, the text index file and what happens to it, growing postings under threads."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.index import bitmap, text_build, text_file
from jadevectordb.index.text import Analyzer, GrowingText, TextConfig, TextIndex, TextReader, build_text, open_text
from jadevectordb.index.text_analysis import FieldReader
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import QUERY_TERMS_MAX, TERM_BYTES_MAX

TITLE = TextConfig(("title",))


def rows_of(reader: TextReader, query: str, config: TextConfig = TITLE, k: int = 10) -> list[int]:
    terms = Analyzer(config).query_terms(query)
    return reader.search(terms, k, reader.stats(terms))[1].tolist()


def built(directory: Path, *titles: str) -> TextIndex:
    build_text([json.dumps({"title": title}).encode() for title in titles], TITLE, directory)
    return open_text(directory, len(titles))


def test_analysis_finds_what_a_reader_would_expect() -> None:
    terms = Analyzer(TITLE).terms
    assert terms("Running DOGS, runs!") == ["run", "dog", "run"]
    assert terms("café") == terms("CAFE\u0301") == terms("cafe")
    assert terms("ﬁne １２ naïve") == ["fine", "12", "naiv"]
    assert terms("a" * TERM_BYTES_MAX) == [] and len(terms("a" * (TERM_BYTES_MAX - 1))) == 1
    assert terms("\ud800 ok") == ["ok"]
    assert terms(" ,.!\x00") == []
    assert Analyzer(TextConfig(("t",), language="none")).terms("Running") == ["running"]
    assert Analyzer(TextConfig(("t",), stop_words=True)).terms("the dog and the cat") == ["dog", "cat"]
    assert Analyzer(TextConfig(("t",), language="german")).terms("Häuser") == Analyzer(
        TextConfig(("t",), language="german")
    ).terms("hauser")


@pytest.mark.parametrize(
    ("fields", "language", "stop_words"),
    [
        ((), "english", False),
        (("a", "a"), "english", False),
        (("a..b",), "english", False),
        (("",), "english", False),
        (tuple(f"f{n}" for n in range(17)), "english", False),
        (("a",), "klingon", False),
        (("a",), "turkish", True),
        (("a",), "none", True),
    ],
)
def test_a_bad_configuration_is_refused(fields: tuple[str, ...], language: str, stop_words: bool) -> None:
    with pytest.raises(JadeError) as error:
        TextConfig(fields, language, stop_words)
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


def test_a_query_of_too_many_words_is_refused_and_repeats_are_not_counted() -> None:
    analyzer = Analyzer(TITLE)
    assert len(analyzer.query_terms("word " * 1000)) == 1000
    with pytest.raises(JadeError, match="shorten it") as error:
        analyzer.query_terms(" ".join(f"w{n}" for n in range(QUERY_TERMS_MAX + 1)))
    assert error.value.code is ErrorCode.INVALID_ARGUMENT


def test_texts_are_read_from_nested_fields_and_arrays() -> None:
    reader = FieldReader(TextConfig(("a.b", "a.c", "title")))
    raw = b'{"x": 1, "title": ["one", 2, "three"], "a": [{"b": "u"}, {"b": ["v", "w"], "c": null}, 7]}'
    assert reader.texts(raw, 0) == ["u\nv\nw", "", "one\nthree"]
    assert reader.texts(b'{"a": {"b": "below"}, "a.b": "as a whole", "a.c": null}', 0) == ["as a whole", "", ""]
    assert reader.texts(b'{"title": {"no": "text"}, "a": "text"}', 0) == ["", "", ""]
    assert reader.texts(b"", 0) == ["", "", ""]
    for bad in (b"[1]", b"{", b'{"title": "\xff"}'):
        with pytest.raises(JadeError, match="row 17") as error:
            reader.texts(bad, 17)
        assert error.value.code is ErrorCode.INVALID_METADATA


def test_better_matches_come_first_and_equal_ones_in_order_of_rows(tmp_path: Path) -> None:
    index = built(tmp_path, "a dog and a cat", "a dog", "nothing", "", "dog dog", "a dog")
    assert rows_of(index, "dog") == [4, 1, 5, 0]
    assert rows_of(index, "dog", k=1) == [4]
    assert rows_of(index, "dog", k=2) == [4, 1, 5], "a tie at the last place is given whole"
    assert rows_of(index, "cat dogs")[0] == 0
    assert rows_of(index, "") == rows_of(index, "!?") == rows_of(index, "unknown") == []
    index.verify()
    assert index.bytes_on_disk > 0


def test_an_empty_block_and_one_without_text(tmp_path: Path) -> None:
    assert rows_of(built(tmp_path), "dog") == []
    build_text([b"{}", b"", b'{"title": 5}'], TITLE, tmp_path)
    index = open_text(tmp_path, 3)
    assert rows_of(index, "dog") == [] and index.term_count == 0
    assert index.stats(["dog"], bitmap.full(3)) == index.stats(["dog"])


def test_deleted_rows_count_nowhere(tmp_path: Path) -> None:
    titles = [f"word{n % 7} common" for n in range(500)]
    index = built(tmp_path, *titles)
    for dead in ([3], list(range(0, 500, 2)), list(range(499))):
        live = bitmap.full(500)
        bitmap.clear_in_place(live, np.array(dead))
        kept = [title for row, title in enumerate(titles) if row not in set(dead)]
        stats = index.stats(["word3", "common", "none"], live)
        assert stats.document_frequency[0] == (len(kept), 0, sum("word3" in title for title in kept))
        assert stats.document_count == (len(kept),) and stats.total_length == (2 * len(kept),)


def test_unknown_and_senseless_boosts_are_refused(tmp_path: Path) -> None:
    index = built(tmp_path, "dog")
    stats = index.stats(["dog"])
    with pytest.raises(JadeError, match="text fields are title") as error:
        index.search(["dog"], 1, stats, boosts={"body": 1.0})
    assert error.value.code is ErrorCode.UNKNOWN_FIELD
    for boost in (-1.0, float("nan"), float("inf"), 1e300, 1e-300):
        with pytest.raises(JadeError):
            index.search(["dog"], 1, stats, boosts={"title": boost})


def test_several_runs_and_several_passes_give_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    raw = [
        json.dumps(
            {"title": " ".join(f"w{n}" for n in generator.geometric(0.02, 12)), "b": "w1 " * int(row % 400)}
        ).encode()
        for row in range(3000)
    ]
    config = TextConfig(("title", "b"))
    one, many = tmp_path / "one", tmp_path / "many"
    one.mkdir()
    many.mkdir()
    build_text(raw, config, one)
    monkeypatch.setattr(text_build, "RUN_TOKENS", 1000)
    monkeypatch.setattr(text_build, "POSTINGS_IN_MEMORY", 500)
    build_text(raw, config, many)
    assert (one / "text.index").read_bytes() == (many / "text.index").read_bytes()
    assert [path.name for path in many.iterdir()] == ["text.index"]
    open_text(many, 3000).verify()


def test_terms_with_the_same_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = text_file.hash_of
    for module in (text_file, text_build):
        monkeypatch.setattr(module, "hash_of", lambda key: real(key) if len(key) > 30 else 42)
    index = built(tmp_path, "one two", "two three", "three four")
    assert (rows_of(index, "two"), rows_of(index, "four"), rows_of(index, "five")) == ([0, 1], [2], [])


def test_damage_is_reported_with_the_file(tmp_path: Path) -> None:
    index = built(tmp_path, *[f"word{n % 50} common text" for n in range(300)])
    path = tmp_path / "text.index"
    sound = path.read_bytes()
    generator = np.random.default_rng(5)

    def must_be_noticed(data: bytes) -> None:
        path.unlink(missing_ok=True)  # never under an open mapping
        path.write_bytes(data)
        with pytest.raises(JadeError, match=r"text\.index") as error:
            open_text(tmp_path, 300).verify()
        assert error.value.code is ErrorCode.CORRUPT
        assert error.value.details["file"] == str(path)

    for length in (0, 5, 24, len(sound) // 2, len(sound) - 1):
        must_be_noticed(sound[:length])
    must_be_noticed(sound + b"x")
    sections = index._sections
    for at in [*generator.integers(len(sound) - 300, len(sound), 60), *(s.offset for s in sections if s.length)]:
        flipped = bytearray(sound)
        flipped[at] ^= 1 << int(generator.integers(8))
        must_be_noticed(bytes(flipped))
    path.unlink()
    with pytest.raises(JadeError, match="missing"):
        open_text(tmp_path, 300)
    path.write_bytes(sound)
    with pytest.raises(JadeError, match="300 rows, not 299"):
        open_text(tmp_path, 299)


def test_a_search_over_flipped_postings_ends_in_an_answer_or_in_corrupt(tmp_path: Path) -> None:
    raw = [b'{"title": "common other"}'] * 200
    build_text(raw, TITLE, tmp_path)
    path = tmp_path / "text.index"
    sound = path.read_bytes()
    sections = {section.name: section for section in open_text(tmp_path, 200)._sections}
    noticed = 0
    for name in ("hashes", "key_starts", "starts", "rows", "lengths"):
        for at in range(sections[name].offset, sections[name].offset + 24):
            flipped = bytearray(sound)
            flipped[at] ^= 0x80
            path.unlink()
            path.write_bytes(flipped)
            try:
                rows_of(open_text(tmp_path, 200), "common other")
            except JadeError as error:
                assert error.code is ErrorCode.CORRUPT
                noticed += 1
    assert noticed > 10


def test_a_newer_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_file, "FORMAT_VERSION", 2)
    build_text([b'{"title": "x"}'], TITLE, tmp_path)
    monkeypatch.setattr(text_file, "FORMAT_VERSION", 1)
    with pytest.raises(JadeError, match="newer") as error:
        open_text(tmp_path, 1)
    assert error.value.code is ErrorCode.FORMAT_TOO_NEW


def test_a_failed_build_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(JadeError, match="row 1"):
        build_text([b"{}", b"nonsense"], TITLE, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(JadeError) as error:
        build_text([b"{}"], TITLE, tmp_path / "not there")
    assert error.value.code is ErrorCode.IO_ERROR


def test_an_index_survives_its_file(tmp_path: Path) -> None:
    index = built(tmp_path, "dog", "cat")
    (tmp_path / "text.index").unlink()
    assert rows_of(index, "cat") == [1]


def test_readers_of_a_growing_block_see_exactly_their_rows_while_it_grows() -> None:
    metadata: list[bytes] = []
    growing = GrowingText(TITLE)
    failures: list[str] = []
    done = threading.Event()

    def search() -> None:
        terms = Analyzer(TITLE).terms("common even")
        while not failures:
            finished = done.is_set()
            count = len(metadata)
            reader = growing.reader(metadata, count)
            stats = reader.stats(terms)
            rows = reader.search(["common"], 5000, stats)[1]
            even = reader.search(["even"], 5000, stats)[1]
            if sorted(rows.tolist()) != list(range(count)) or sorted(even.tolist()) != list(range(0, count, 2)):
                failures.append(f"{count} rows, found {len(rows)} and {len(even)}")
            if stats.document_count != (count,) or stats.total_length != (count + (count + 1) // 2,):
                failures.append(f"{count} rows, {stats}")
            if finished:
                return

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for row in range(3000):
        metadata.append(b'{"title": "common even"}' if row % 2 == 0 else b'{"title": "common"}')
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_growing_reader_keeps_its_rows_and_names_a_bad_one() -> None:
    metadata = [b'{"title": "dog"}', b'{"title": "dog"}']
    growing = GrowingText(TITLE)
    first = growing.reader(metadata, 2)
    assert rows_of(first, "dog") == [0, 1]
    metadata += [b'{"title": "dog"}', b"nonsense"]
    assert rows_of(growing.reader(metadata, 3), "dog") == [0, 1, 2]
    assert rows_of(first, "dog") == [0, 1]
    for _ in range(2):
        with pytest.raises(JadeError, match="row 3"):
            rows_of(growing.reader(metadata, 4), "dog")
    assert rows_of(growing.reader(metadata, 3), "dog") == [0, 1, 2]


def test_fields_of_any_name_are_searched(tmp_path: Path) -> None:
    """Quotes, backslashes and control characters may stand in a JSON key, so they may in a field's name."""
    quoted, slashed, control = 'a"b', "c\\d", "e\x01"
    schema = {quoted: "text", slashed: "text[]", control: "text", "n\x00": "integer"}
    with jade.open(tmp_path / "store") as store:
        database = store.create_database("d", 2, schema=schema)
        rows = [{quoted: "green river", slashed: ["stone", "jade"], "n\x00": 3}, {quoted: "blue", control: "stone"}]
        database.upsert(["a", "b"], [[1, 0], [0, 1]], rows)
        database.compact()
    with jade.open(tmp_path / "store") as store:
        database = store.database("d")
        assert [hit.id for hit in database.search(text="river")] == ["a"]
        assert {hit.id for hit in database.search(text="stone")} == {"a", "b"}
        assert database.count({"n\x00": {"$gt": 2}}) == 1
        database.verify()
