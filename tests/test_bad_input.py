"""Whatever quadbench is given: no traceback, no hang, nothing outside its folder, nothing wrong accepted, and a fit message."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.bad_input.adapters import adapter_cases
from support.bad_input.bundles import bundle_cases, flipped_cases
from support.bad_input.case import Case, faults_of
from support.bad_input.databases import database_cases
from support.bad_input.foundations import foundation_cases
from support.bad_input.harnesses import harness_cases
from support.bad_input.inputs import input_cases
from support.bad_input.runs import run_cases
from support.bad_input.specs import spec_cases
from support.watcher import Silent

from quadbench import pipeline
from quadbench.artifacts import Bundle, StoredBundle
from quadbench.devices.addresses import parse_addresses
from quadbench.harness.program import OVERRIDE
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest

SEED = 1
SHARE = 24  # of so many cases the fast tests have one
LEAST = 600
FAMILIES = ("specs", "adapters", "inputs", "foundations", "bundles", "flipped bytes", "databases", "harnesses")


@pytest.fixture(scope="session")
def bundle(tiny_bundle: StoredBundle, tmp_path_factory: pytest.TempPathFactory) -> StoredBundle:
    """A copy of the tiny bundle, to which adapters may be admitted."""
    folder = tmp_path_factory.mktemp("bad") / "bundles" / "b"
    return read_manifest(Path(shutil.copytree(tiny_bundle.folder, folder)), Bundle)


@pytest.fixture(scope="session")
def stored_run(tiny_recipe: Path, tiny_bundle: StoredBundle, harness: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run on this machine."""
    layout = Layout(tmp_path_factory.mktemp("run"))
    shutil.copytree(tiny_bundle.folder, layout.bundles / tiny_bundle.folder.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(OVERRIDE, str(harness))
        assert pipeline.run(load_recipe(tiny_recipe), parse_addresses(["local"]), layout=layout, observer=Silent()).is_ok
    return layout.root


def cases_of(family: str, tiny: Path, bundle: StoredBundle, run: Path) -> list[Case]:
    dice = random.Random(SEED)
    cases: dict[str, Iterator[Case]] = {
        "specs": spec_cases(dice),
        "adapters": adapter_cases(dice, tiny / "adapters/first", bundle),
        "inputs": input_cases(dice, tiny),
        "foundations": foundation_cases(dice, tiny / "model"),
        "bundles": bundle_cases(dice, bundle),
        "flipped bytes": flipped_cases(dice, bundle, tiny / "adapters/first"),
        "databases": database_cases(dice, run),
        "harnesses": harness_cases(dice),
    }
    return list(cases[family])


@pytest.fixture(params=FAMILIES)
def cases(request: pytest.FixtureRequest, tiny_recipe: Path, bundle: StoredBundle, stored_run: Path) -> list[Case]:
    """All cases of a family."""
    return cases_of(request.param, tiny_recipe.parent, bundle, stored_run)


def judged(cases: list[Case], folder: Path) -> list[str]:
    """Return every fault in how quadbench takes the cases."""
    faults = []
    for number, case in enumerate(cases):
        faults += faults_of(case, folder / str(number))
        shutil.rmtree(folder / str(number))
    return faults


def test_a_share_of_all_bad_input_is_refused(cases: list[Case], tmp_path: Path) -> None:
    assert judged(cases[SEED::SHARE], tmp_path) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_all_bad_input_is_refused(cases: list[Case], tmp_path: Path) -> None:
    assert len({case.name for case in cases}) > 0.9 * len(cases)
    assert judged(cases, tmp_path) == []


@pytest.mark.slow
def test_there_is_enough_of_it(tiny_recipe: Path, bundle: StoredBundle, stored_run: Path) -> None:
    assert sum(len(cases_of(family, tiny_recipe.parent, bundle, stored_run)) for family in FAMILIES) >= LEAST


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_one_other_byte_in_a_stored_run_is_refused_by_whatever_reads_it(
    tiny_recipe: Path, stored_run: Path, harness: Path, tmp_path: Path
) -> None:
    """Every file of its bundle and compiled bundle, every image and the events: when run again, reported and scored."""
    cases = list(run_cases(random.Random(SEED), tiny_recipe, stored_run, harness))
    assert len(cases) > 100
    assert judged(cases, tmp_path) == []
