"""Kills a store as often as you like: `python -m tests.crash.torture --kills 2000 --seed 1`.

The same rounds as in `test_kill_database`, in campaigns of 50 on fresh folders. It prints where the deaths fell, and stops at the
first thing that is not as it must be, with the seed that shows it again and the folder as it was.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from time import monotonic

from tests.crash.rounds import Campaign

CAMPAIGN_ROUNDS = 50


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    directory = options.folder or Path(tempfile.mkdtemp(prefix="torture-"))
    deaths: Counter[str] = Counter()
    steps: Counter[str] = Counter()
    operations, seed, started = 0, options.seed, monotonic()
    while sum(deaths.values()) < options.kills:
        place = directory / f"seed-{seed}"
        campaign = Campaign(place, seed)
        try:
            for _ in range(min(CAMPAIGN_ROUNDS, options.kills - sum(deaths.values()))):
                campaign.run_round()
                deaths[""] += 1
            campaign.examine()
        except BaseException:
            print(f"failed with --seed {seed}; the folder is {place}", flush=True)
            raise
        finally:
            deaths.pop("", None)
            deaths += campaign.deaths
            steps += campaign.steps
            operations += campaign.operations
            campaign.close()
        shutil.rmtree(place)
        seed += 1
        places = ", ".join(f"{where} {count}" for where, count in deaths.most_common())
        print(
            f"{sum(deaths.values())} kills in {monotonic() - started:.0f} s, {operations} operations acknowledged: {places}",
            flush=True,
        )
    shutil.rmtree(directory, ignore_errors=True)
    print(f"nothing lost, nothing half done; {len(steps)} different places to die in")


if __name__ == "__main__":
    main()
