"""A server is killed under load and started again: all that it acknowledged is there, and nothing is half-done."""

from __future__ import annotations

from pathlib import Path

from tests.crash.server_rounds import ServerCampaign


def test_a_killed_server_comes_back_with_everything_acknowledged(tmp_path: Path) -> None:
    campaign = ServerCampaign(tmp_path, seed=1)
    try:
        while campaign.rounds < 3 or campaign.acknowledged <= 50:  # a busy machine may die young
            assert campaign.rounds < 20
            campaign.run_round()
        campaign.finish()
    finally:
        campaign.close()
