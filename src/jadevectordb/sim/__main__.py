"""`python -m jadevectordb.sim --seed N --runs M`: simulates clusters; what must not be is told with its seed."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from jadevectordb.sim.loop import DefectError
from jadevectordb.sim.world import Outcome, by_vector, run_seed, shape_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m jadevectordb.sim", description="Whole clusters on virtual time.")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--runs", type=int, default=1, help="how many seeds, one after the other")
    parser.add_argument("--short", action="store_true", help="some seconds of faults a seed, as in the tests")
    parser.add_argument("--by-vector", action="store_true", help="a database whose vectors decide their shard")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    started, failed = time.monotonic(), []
    for seed in range(options.seed, options.seed + options.runs):
        try:
            shape = shape_of(seed, short=options.short)
            outcome = run_seed(seed, by_vector(shape) if options.by_vector else shape)
        except DefectError as error:
            _say(str(error))
            failed.append(seed)
            continue
        if outcome.violations:
            failed.append(seed)
        _tell(outcome, everything=options.runs == 1 or bool(outcome.violations))
    seconds = time.monotonic() - started
    _say(f"{options.runs - len(failed)} passed, {len(failed)} failed, {seconds:.1f} s")
    if failed:
        _say(f"again: make sim SEED={failed[0]}{' SHORT=1' if options.short else ''} (failed: {failed})")
    return 1 if failed else 0


def _tell(outcome: Outcome, *, everything: bool) -> None:
    if everything:
        _say("\n".join(outcome.told))
        _say(outcome.report.text())
    _say(
        f"seed {outcome.seed}: {'violated' if outcome.violations else 'passed'}, {outcome.report.operations} operations, "
        f"{outcome.virtual_s:.0f} s simulated, whole again after {outcome.healed_s:.1f} s, {outcome.steps} events, "
        f"{len(outcome.report.undecided)} ids undecided, {outcome.fingerprint}"
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
