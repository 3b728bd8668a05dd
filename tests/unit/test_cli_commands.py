"""The commands, through click's runner: what they print, what they refuse, and with which exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import jadevectordb as jade
from jadevectordb.cli.main import commands

Run = Callable[..., Result]
ROWS, DIMENSION = 60, 8


@pytest.fixture
def run() -> Run:
    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(commands, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return invoke


@pytest.fixture
def vectors() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).standard_normal((ROWS, DIMENSION), dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path, vectors: np.ndarray[Any, Any]) -> Path:
    """A store with one database "words": ids w0, w1, ...; even ones are nouns."""
    with jade.open(tmp_path / "store") as store:
        database = store.create_database("words", DIMENSION, schema={"pos": "string", "gloss": "text"})
        metadata = [{"pos": ["noun", "verb"][i % 2], "gloss": f"meaning [bold]{i}[/bold]"} for i in range(ROWS)]
        database.upsert([f"w{i}" for i in range(ROWS)], vectors, metadata)
    return tmp_path / "store"


def exact(vectors: np.ndarray[Any, Any], query: np.ndarray[Any, Any], rows: list[int], k: int) -> list[str]:
    scores = {row: vectors[row] @ query / np.linalg.norm(vectors[row]) for row in rows}
    return [f"w{row}" for row in sorted(rows, key=lambda row: -scores[row])[:k]]


# Which databases there are


def test_create_list_drop(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    made = run("create", folder, "a", "--dimension", 4, "--metric", "euclidean", "--schema", '{"year": "integer"}')
    assert (made.exit_code, made.stdout) == (0, "made a: dimension 4, euclidean\n")
    listed = run("databases", folder, "--format", "json")
    assert json.loads(listed.stdout) == [
        {"name": "a", "vectors": 0, "dimension": 4, "metric": "euclidean", "index": "AUTO", "shards": 1}
    ]
    assert "euclidean" in run("databases", folder).stdout
    assert run("drop", folder, "a", stdin="n\n").exit_code == 1
    assert json.loads(run("databases", folder, "--format", "json").stdout)
    assert run("drop", folder, "a", "--yes").exit_code == 0
    assert run("databases", folder).stdout == f"No databases in {folder} yet.\n"


def test_drop_goes_on_after_yes(run: Run, folder: Path) -> None:
    assert run("drop", folder, "words", stdin="y\n").exit_code == 0
    assert json.loads(run("databases", folder, "--format", "json").stdout) == []


def test_create_refuses_a_name_that_is_taken(run: Run, folder: Path) -> None:
    result = run("create", folder, "words", "--dimension", 4)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: There is a database 'words'")
    assert json.loads(run("count", folder, "words", "--format", "json").stdout) == {"count": ROWS}


def test_stats(run: Run, folder: Path) -> None:
    plain = json.loads(run("stats", folder, "words", "--format", "json").stdout)
    assert (plain["rows"], plain["dimension"], plain["trouble"]) == (ROWS, DIMENSION, "")
    assert json.loads(run("stats", folder, "--format", "json").stdout)[0]["rows"] == ROWS
    assert str(ROWS) in run("stats", folder).stdout


# Reading


def test_search_by_id(run: Run, folder: Path, vectors: np.ndarray[Any, Any]) -> None:
    found = json.loads(run("search", folder, "words", "--id", "w5", "-k", 4, "--recall", 1, "--format", "json").stdout)
    assert [hit["id"] for hit in found["hits"]] == exact(vectors, vectors[5], [r for r in range(ROWS) if r != 5], 4)


def test_search_by_vector_with_filter_and_plan(run: Run, folder: Path, vectors: np.ndarray[Any, Any]) -> None:
    query = json.dumps(vectors[0].tolist())
    options = ("--vector", query, "--filter", '{"pos": "verb"}', "-k", 3, "--recall", 1, "--explain")
    found = json.loads(run("search", folder, "words", *options, "--format", "json", "--vectors").stdout)
    assert [hit["id"] for hit in found["hits"]] == exact(vectors, vectors[0], list(range(1, ROWS, 2)), 3)
    assert found["hits"][0]["vector"] == vectors[int(found["hits"][0]["id"][1:])].tolist()
    assert found["explanation"]["matches"] == ROWS // 2
    table = run("search", folder, "words", *options).stdout
    assert "recall asked 1.0" in table
    assert "gloss=meaning [bold]" in table  # data is no markup


def test_search_by_file_answers_row_by_row(
    run: Run, folder: Path, vectors: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    np.save(tmp_path / "one.npy", vectors[7])
    np.save(tmp_path / "many.npy", vectors[:3].astype(np.float64))
    one = run("search", folder, "words", "--file", tmp_path / "one.npy", "-k", 1, "--format", "json").stdout
    assert json.loads(one)["hits"][0]["id"] == "w7"
    many = run("search", folder, "words", "--file", tmp_path / "many.npy", "-k", 1, "--format", "json").stdout
    answers = [json.loads(line) for line in many.splitlines()]
    assert [(answer["query"], answer["hits"][0]["id"]) for answer in answers] == [(0, "w0"), (1, "w1"), (2, "w2")]
    assert "query 2" in run("search", folder, "words", "--file", tmp_path / "many.npy").stdout


def test_search_by_text(run: Run, folder: Path) -> None:
    found = json.loads(run("search", folder, "words", "--text", "17", "--format", "json").stdout)
    assert [hit["id"] for hit in found["hits"]] == ["w17"]
    assert run("search", folder, "words", "--text", "nowhere").stdout == "Nothing matches.\n"
    assert "words nowher" in run("search", folder, "words", "--text", "nowhere", "--explain").stdout


def test_get(run: Run, folder: Path, vectors: np.ndarray[Any, Any]) -> None:
    found = json.loads(run("get", folder, "words", "w1", "w2", "--format", "json", "--vectors").stdout)
    assert [item["id"] for item in found] == ["w1", "w2"]
    assert found[0]["vector"] == vectors[1].tolist()
    missing = run("get", folder, "words", "w1", "nobody", "--format", "json")
    assert (missing.exit_code, missing.stderr) == (1, "error: Not in words: nobody.\n")
    assert json.loads(missing.stdout)[1] is None
    assert "w1" in run("get", folder, "words", "w1").stdout


def test_count(run: Run, folder: Path) -> None:
    assert run("count", folder, "words").stdout == f"{ROWS}\n"
    assert run("count", folder, "words", "--filter", '{"pos": "noun"}').stdout == f"{ROWS // 2}\n"


# Files


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "jsonl.gz"])
def test_export_then_import_gives_the_same(run: Run, folder: Path, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"out.{suffix}"
    assert run("export", folder, "words", file).stdout.startswith(f"exported {ROWS} vectors to {file}, ")
    assert run("create", folder, "copy", "--dimension", DIMENSION).exit_code == 0
    report = json.loads(run("import", folder, "copy", file, "--format", "json").stdout)
    assert (report["rows"], report["skipped"]) == (ROWS, 0)
    with jade.open(folder) as store:
        one, two = (
            {i.id: (i.metadata, i.vector.tobytes()) for i in store.database(n).items()} for n in ("words", "copy")
        )
        assert one == two
        assert store.database("copy").stats().indexed_rows == ROWS
        assert not list(folder.glob("db-*/import-*")), "the checkpoint goes when the import is done"


def test_export_part_of_it(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "verbs.jsonl"
    assert run("export", folder, "words", file, "--filter", '{"pos": "verb"}', "--no-vectors").exit_code == 0
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == ROWS // 2
    assert all(line["metadata"]["pos"] == "verb" and "vector" not in line for line in lines)
    refused = run("export", folder, "words", file)
    assert (refused.exit_code, "--overwrite" in refused.stderr) == (1, True)
    report = json.loads(run("export", folder, "words", file, "--overwrite", "--format", "json").stdout)
    assert report["rows"] == ROWS


def test_import_stops_or_skips(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    rows = [{"id": f"n{i}", "vector": [1.0] * (DIMENSION if i != 3 else 2), "metadata": {}} for i in range(8)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    stopped = run("import", folder, "words", file)
    assert stopped.exit_code == 1
    assert "line 4" in stopped.stderr
    assert "--on-error skip" in stopped.stderr
    assert run("count", folder, "words").stdout == f"{ROWS}\n"
    skipped = run("import", folder, "words", file, "--on-error", "skip", "--no-wait")
    assert skipped.exit_code == 0
    assert skipped.stdout.startswith("imported 7 vectors")
    assert skipped.stderr.startswith("left out: line 4")
    assert run("count", folder, "words").stdout == f"{ROWS + 7}\n"


def test_import_goes_on_where_it_was(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    row = {"id": "n0", "vector": [1.0] * DIMENSION, "metadata": {}}
    file.write_text("".join(json.dumps({**row, "id": f"n{i}"}) + "\n" for i in range(30)) + "{not json}\n")
    assert run("import", folder, "words", file, "--batch-rows", 10).exit_code == 1
    again = run("import", folder, "words", file, "--batch-rows", 10, "--on-error", "skip")
    assert again.exit_code == 0, again.stderr
    assert again.stdout.startswith("imported 30 vectors (30 of them by an earlier run)")
    assert run("count", folder, "words").stdout == f"{ROWS + 30}\n"


def test_import_of_a_changed_file_says_how_to_begin_anew(run: Run, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    lines = [json.dumps({"id": f"n{i}", "vector": [1.0] * DIMENSION, "metadata": {}}) + "\n" for i in range(20)]
    file.write_text("".join(lines) + "{not json}\n")
    assert run("import", folder, "words", file, "--batch-rows", 10).exit_code == 1
    file.write_text("".join(lines))
    changed = run("import", folder, "words", file)
    assert (changed.exit_code, "--restart" in changed.stderr) == (1, True)
    assert run("import", folder, "words", file, "--restart").stdout.startswith("imported 20 vectors in")
    assert run("count", folder, "words").stdout == f"{ROWS + 20}\n"


# Looking after it


def test_verify_snapshot_compact(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run("verify", folder).stdout.startswith(f"words: {ROWS} vectors, ")
    assert run("compact", folder, "words").stdout.startswith(f"words: {ROWS} vectors, 0 dead rows")
    assert run("snapshot", folder, tmp_path / "copy").exit_code == 0
    assert run("count", tmp_path / "copy", "words").stdout == f"{ROWS}\n"
    again = run("snapshot", folder, tmp_path / "copy")
    assert (again.exit_code, again.stderr.startswith("error: ")) == (1, True)


def test_verify_names_the_damaged_file(run: Run, folder: Path) -> None:
    assert run("compact", folder, "words").exit_code == 0
    file = max((f for f in folder.glob("db-*/shard-*/*/*") if f.is_file()), key=lambda f: f.stat().st_size)
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    result = run("verify", folder)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: words: ")
    assert file.name in result.stderr


# Wrong input


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("databases", "{tmp}/nowhere"), "holds no databases"),
        (("count", "{folder}", "nope"), "There is no database 'nope'"),
        (("stats", "{folder}", "nope"), "there are: words"),
        (("drop", "{folder}", "nope", "--yes"), "There is no database 'nope'"),
        (("verify", "{folder}", "nope"), "There is no database 'nope'"),
        (("create", "{folder}", "x", "--dimension", "4", "--schema", '{"a": "blob"}'), "blob"),
        (("create", "{folder}", "a/b", "--dimension", "4"), "a/b"),
        (("search", "{folder}", "words", "--vector", "[1, 2]"), "dimension 8"),
        (("search", "{folder}", "words", "--vector", '["a"]'), "numbers"),
        (("search", "{folder}", "words", "--vector", "[1, NaN, 1, 1, 1, 1, 1, 1]"), "Vector 0"),
        (("search", "{folder}", "words", "--id", "zzz"), "zzz"),
        (("search", "{folder}", "words", "--id", "w1", "-k", "0"), "k must be"),
        (("search", "{folder}", "words", "--id", "w1", "--recall", "2"), "recall"),
        (("search", "{folder}", "words", "--id", "w1", "--filter", '{"pos": {"$foo": 1}}'), "$foo"),
        (("search", "{folder}", "words", "--file", "{tmp}/junk.npy"), "junk.npy is not a whole .npy file"),
        (("search", "{folder}", "words", "--file", "{tmp}/cube.npy"), "a vector a row"),
        (("import", "{folder}", "nope", "{tmp}/junk.npy"), "There is no database 'nope'"),
        (("import", "{folder}", "words", "{tmp}/junk.npy"), "junk.npy"),
        (("export", "{folder}", "words", "{tmp}/out.xyz"), "--file-format"),
        (("export", "{folder}", "words", "{tmp}/none/out.csv"), "out.csv"),
    ],
)
def test_errors_are_a_sentence(run: Run, folder: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    (tmp_path / "junk.npy").write_text("hello")
    np.save(tmp_path / "cube.npy", np.zeros((2, 2, 2)))
    places = {"{folder}": str(folder), "{tmp}": str(tmp_path)}
    filled = []
    for argument in arguments:
        for mark, place in places.items():
            argument = argument.replace(mark, place)
        filled.append(argument)
    result = run(*filled)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert says in result.stderr
    assert result.stdout == ""
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("frob",),
        ("search", "{folder}"),
        ("search", "{folder}", "words"),
        ("search", "{folder}", "words", "--id", "w1", "--vector", "[1]"),
        ("search", "{folder}", "words", "--vector", "{"),
        ("search", "{folder}", "words", "--vector", '{"a": 1}'),
        ("search", "{folder}", "words", "--file", "{folder}/none.npy"),
        ("count", "{folder}", "words", "--filter", "pos=noun"),
        ("count", "{folder}", "words", "--filter", "[]"),
        ("count", "{folder}", "words", "--format", "xml"),
        ("create", "{folder}", "x"),
        ("create", "{folder}", "x", "--dimension", "0"),
        ("create", "{folder}", "x", "--dimension", "4", "--metric", "taxi"),
        ("import", "{folder}", "words", "{folder}/none.jsonl"),
    ],
)
def test_wrong_usage(run: Run, folder: Path, arguments: tuple[str, ...]) -> None:
    result = run(*(argument.replace("{folder}", str(folder)) for argument in arguments))
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert result.stdout == ""


def test_bench_measures_speed_and_recall(tmp_path: Path) -> None:
    with jade.open(tmp_path / "data") as store:
        database = store.create_database("words", dimension=8)
        rows = np.random.default_rng(3).standard_normal((300, 8))
        database.upsert([f"w{i}" for i in range(300)], rows, [{"even": i % 2 == 0} for i in range(300)])
        store.create_database("none", dimension=2)
    arguments = ["bench", str(tmp_path / "data"), "words", "--seconds", "0.2", "--clients", "2", "--format", "json"]
    result = CliRunner().invoke(commands, [*arguments, "--filter", '{"even": true}'])
    assert result.exit_code == 0, result.output
    facts = json.loads(result.output)
    assert facts["searches"] > 0 and facts["recall@10 found"] == 1.0 and facts["p50 ms"] <= facts["p99 ms"]
    refused = CliRunner().invoke(commands, ["bench", str(tmp_path / "data"), "none"])
    assert refused.exit_code == 1 and "empty" in refused.output
