"""A store is killed (SIGKILL) again and again, at random moments and in every place that changes files; nothing is ever lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.crash.rounds import Campaign


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_acknowledged_operation_survives_and_none_is_half_done(tmp_path: Path, seed: int) -> None:
    campaign = Campaign(tmp_path, seed)
    try:
        for _ in range(25):
            campaign.run_round()
        campaign.examine()
    finally:
        campaign.close()
    assert sum(campaign.deaths.values()) == 25
    assert campaign.operations > 0


def test_a_database_killed_while_it_is_altered_is_as_before_or_as_wanted(tmp_path: Path) -> None:
    campaign = Campaign(tmp_path, 4)
    try:
        for _ in range(12):
            campaign.run_round("alter")
        campaign.examine()
    finally:
        campaign.close()
    assert campaign.deaths["alter"] > 5
