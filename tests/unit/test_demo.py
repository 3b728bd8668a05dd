"""The demo, from its data to its last line, and that it notices a promise that was not kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import jadevectordb as jade
from jadevectordb.cli import demo_crash, demo_data, demo_writer


def test_data_fits_together() -> None:
    data = demo_data.load(None)
    assert len(data.ids) == len(set(data.ids)) == len(data.metadata) == 12_000
    vectors = data.vectors / np.linalg.norm(data.vectors, axis=1, keepdims=True)
    queries = data.queries / np.linalg.norm(data.queries, axis=1, keepdims=True)
    scores = queries @ vectors.T
    best = np.sort(scores, axis=1)[:, -10:][:, ::-1]
    assert np.allclose(np.take_along_axis(scores, data.truth.astype(np.int64), axis=1), best, atol=1e-5)


def test_licences_are_there() -> None:
    folder = Path(__file__).parents[2] / demo_data.FOLDER_IN_CHECKOUT
    licence = (folder / "LICENSE-WordNet.txt").read_text()
    assert "WordNet 3.1 Copyright 2011 by Princeton University.  All rights reserved." in licence
    assert "Permission to use, copy, modify and distribute" in licence
    readme = (folder / "README.md").read_text()
    assert "all-MiniLM-L6-v2" in readme
    assert "Apache-2.0" in readme


def test_demo_end_to_end(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = "from jadevectordb.cli.main import main; main()"
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", command, "demo", "--folder", folder],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    shown = result.stdout
    assert "\x1b" not in shown, "no colours in a pipe"
    assert max(map(len, shown.splitlines())) <= 100
    assert "re-establishment (noun)" in shown
    assert shown.count("  kept  ") == 3
    assert "BROKEN" not in shown
    assert "\n    Killed" in shown
    for target in ("0.90", "0.95", "0.99", "exact"):
        (recall,) = re.findall(rf"^ +{re.escape(target)} +([01]\.\d+) ", shown, re.MULTILINE)
        assert float(recall) >= (0.999 if target == "exact" else float(target) - 0.03)
    with jade.open(folder / "wordnet") as store:
        assert store.database("wordnet").count() == 12_000


@pytest.fixture
def batches(tmp_path: Path) -> Path:
    """A folder with batches 1 and 2."""
    demo_writer.create(tmp_path / "batches")
    with jade.open(tmp_path / "batches") as store:
        for number in (1, 2):
            store.database(demo_writer.DATABASE).upsert(*demo_writer.batch(number))
    return tmp_path / "batches"


def test_recovered_as_promised(batches: Path) -> None:
    found = demo_crash.recover(batches, {1}, 2)
    assert (found.batches, found.missing, found.strange, found.in_flight_there) == (2, [], [], True)
    assert found.vectors == 2 * demo_writer.BATCH_ROWS


def test_a_lost_batch_is_noticed(batches: Path) -> None:
    assert demo_crash.recover(batches, {1, 2, 3}, None).missing == [3]


def test_half_a_batch_is_noticed(batches: Path) -> None:
    with jade.open(batches) as store:
        store.database(demo_writer.DATABASE).delete("batch-2-row-5")
    found = demo_crash.recover(batches, {1}, 2)
    assert (found.missing, found.strange, found.in_flight_there) == ([], [2], False)


def test_other_values_are_noticed(batches: Path) -> None:
    ids, vectors, metadata = demo_writer.batch(1)
    with jade.open(batches) as store:
        store.database(demo_writer.DATABASE).upsert(ids[:1], vectors[:1] * np.float32(1.0001), metadata[:1])
    found = demo_crash.recover(batches, {1, 2}, None)
    assert (found.missing, found.strange) == ([1], [1])


def test_a_batch_nobody_wrote_is_noticed(batches: Path) -> None:
    assert demo_crash.recover(batches, {1}, None).strange == [2]


def test_a_writer_that_fails_is_no_kill(tmp_path: Path) -> None:
    killed = demo_crash.write_and_kill(tmp_path / "nothing", 1, 2, lambda _: None)
    assert "UNKNOWN_DATABASE" in killed.unplanned
    assert (killed.acknowledged, killed.in_flight) == ([], None)
