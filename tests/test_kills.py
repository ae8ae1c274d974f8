"""A run whose processes are killed, or that is interrupted, at any moment: nothing is lost, doubled or left, the next works."""

import random
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.kills import Arena, Kill, kinds_of_kills

from quadbench.artifacts import StoredBundle

SEED = 3
KILLS = 12


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_survives_the_end_of_any_of_its_processes(
    tiny_recipe: Path, tiny_bundle: StoredBundle, harness: Path, tmp_path: Path
) -> None:
    """A few kinds of kills, drawn, and one in a build; `python -m support.kills` has as many as one likes."""
    dice = random.Random(SEED)
    kinds = [kill for kill in kinds_of_kills() if kill.stage != "build"]
    arena = Arena(tmp_path / "results", tiny_recipe, tiny_bundle.folder.parent, harness, dice)
    drawn = [*dice.sample(kinds, KILLS - 1), Kill(victim="quadbench", stage="build")]
    outcomes = [arena.strike(kill) for kill in drawn]
    assert [outcome for outcome in outcomes if outcome.faults] == []
    assert sum(outcome.stage is not None for outcome in outcomes) > KILLS / 2
