"""A device that heats up in a launch has that launch's block repeated, and the run ends as any other."""

from pathlib import Path

import pytest
from support.sentences import says
from support.watcher import Silent

from quadbench import pipeline
from quadbench.artifacts import Status, Variant
from quadbench.devices.addresses import parse_addresses
from quadbench.recipe.recipe import load_recipe
from quadbench.report.launches import whole_blocks
from quadbench.results.layout import Layout

pytestmark = pytest.mark.slow

SCENARIO = """\
schema_version: 1
name: heats
title: The device heats up in its second launch, the first that counts, and has cooled down 20 seconds later.
events:
  - {event: heat, when: {at: launch, launch: 2}, for_s: 20}
"""


def test_a_block_in_which_the_device_heats_up_is_repeated_for_both_variants(tiny_recipe: Path, tmp_path: Path) -> None:
    scenario = tmp_path / "heats.yaml"
    scenario.write_text(SCENARIO)
    recipe = load_recipe(tiny_recipe, {"measure.launches": 2})
    outcome = pipeline.run(
        recipe, parse_addresses([f"virtual:s25?scenario={scenario}"]), layout=Layout(tmp_path / "results"), observer=Silent()
    )
    assert outcome.is_ok
    records = outcome.result.records
    (discarded,) = [record for record in records if record.status is Status.DISCARDED]
    assert (discarded.variant, discarded.launch) == (Variant.SHARED, 0)
    assert discarded.reason is not None
    says(discarded.reason, "discarded, and its block is repeated: thermal status 3 (severe)")
    sound = [(record.variant, record.launch) for record in records if record.status is Status.OK]
    repeated = [(variant, launch) for launch in (1000, 1001) for variant in (Variant.SHARED, Variant.PER_GRAPH)]
    assert sorted(sound) == sorted([(Variant.FLOAT, 0), *repeated])
    assert len(whole_blocks(records)) == 1
    assert "DISCARDED" in outcome.report.read_text()
