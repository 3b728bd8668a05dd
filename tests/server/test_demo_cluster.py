"""The demo of a cluster, end to end: three real nodes, one killed; and the checks it prints notice what is wrong."""

from __future__ import annotations

import subprocess
import sys

from jadevectordb.cli.cluster_digests import ReplicaDigest, equal


def test_the_demo_keeps_its_promises() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jadevectordb", "demo", "--cluster"],
        capture_output=True,
        text=True,
        timeout=420,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for promise in ("acknowledged writes are there", "no client saw an error", "all 12 replicas are equal"):
        assert promise in done.stdout


def test_replicas_that_differ_are_noticed() -> None:
    same = [ReplicaDigest(0, node, 7, 3, "abc") for node in ("n1", "n2", "n3")]
    assert equal(same)
    assert equal([*same, ReplicaDigest(1, "n1", 9, 4, "def")])
    assert not equal([*same[:2], ReplicaDigest(0, "n3", 7, 3, "abd")])
    assert not equal([*same[:2], ReplicaDigest(0, "n3", 6, 3, "abc")])
