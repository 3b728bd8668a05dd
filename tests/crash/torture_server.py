"""Kills a server as often as you like: `python -m tests.crash.torture_server --kills 200 --seed 1`.

The same rounds as in `test_kill_server`, in campaigns of 20 on fresh folders. It stops at the first thing that is not as it must
be, with the seed that loads the same way again and the folder as it was.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from time import monotonic

from tests.crash.server_rounds import ServerCampaign

CAMPAIGN_ROUNDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=None, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    directory = options.folder or Path(tempfile.mkdtemp(prefix="torture-server-"))
    kills, acknowledged, seed, started = 0, 0, options.seed, monotonic()
    while kills < options.kills:
        place = directory / f"seed-{seed}"
        place.mkdir(parents=True)
        campaign = ServerCampaign(place, seed)
        try:
            for _ in range(min(CAMPAIGN_ROUNDS, options.kills - kills)):
                campaign.run_round()
                kills += 1
            campaign.finish()
        except BaseException:
            print(f"failed with --seed {seed}; the folder is {place}", flush=True)
            raise
        finally:
            campaign.close()
        acknowledged += campaign.acknowledged
        shutil.rmtree(place)
        seed += 1
        print(
            f"{kills} servers killed in {monotonic() - started:.0f} s, {acknowledged} operations acknowledged",
            flush=True,
        )
    shutil.rmtree(directory, ignore_errors=True)
    print("nothing lost, nothing half done")


if __name__ == "__main__":
    main()
