"""Whatever quadbench is given: no traceback, no hang, nothing outside its folder, nothing wrong accepted, and a fit message."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.bad_input.adapters import adapter_cases
from support.bad_input.addresses import address_cases
from support.bad_input.bundles import bundle_cases, flipped_cases
from support.bad_input.case import Case, faults_of
from support.bad_input.databases import database_cases
from support.bad_input.foundations import foundation_cases
from support.bad_input.harnesses import harness_cases
from support.bad_input.inputs import input_cases
from support.bad_input.runs import run_cases
from support.bad_input.specs import spec_cases
from support.sentences import says
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
FAMILIES = ("specs", "adapters", "inputs", "foundations", "bundles", "flipped bytes", "databases", "addresses", "harnesses")


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
        "addresses": address_cases(dice),
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


def _spoilt_recipe(folder: Path, _tiny: Path) -> list[str]:
    (folder / "r.yaml").write_text("schema_version: 1\nname: A B\n")
    return ["recipe", "check", "r.yaml"]


def _spoilt_adapter(folder: Path, tiny: Path) -> list[str]:
    shutil.copytree(tiny / "adapters/first", folder / "adapter")
    (folder / "adapter/adapter_model.safetensors").write_bytes(b"\xff" * 100)
    return ["adapter", "inspect", "adapter"]


def _database_of_noise(folder: Path, _tiny: Path) -> list[str]:
    (folder / "results").mkdir()
    (folder / "results/quadbench.sqlite").write_bytes(b"noise" * 1000)
    return ["report"]


def _pipe_as_database(folder: Path, _tiny: Path) -> list[str]:
    (folder / "results").mkdir()
    os.mkfifo(folder / "results/quadbench.sqlite")
    return ["report"]


def _missing_inputs(folder: Path, tiny: Path) -> list[str]:
    shutil.copytree(tiny, folder / "tiny")
    (folder / "tiny/inputs/inputs.json").write_text("[{}]")
    return ["run", "tiny/recipe.yaml", "--devices", "local"]


def _wrong_foundation(folder: Path, tiny: Path) -> list[str]:
    shutil.copytree(tiny, folder / "tiny")
    (folder / "tiny/model/unet/config.json").write_text('{"sample_size": "x"}')
    return ["run", "tiny/recipe.yaml", "--devices", "local"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prepare", "code", "words"),
    [
        (_spoilt_recipe, 2, ("r.yaml:2: name",)),
        (_spoilt_adapter, 2, ("adapter_model.safetensors",)),
        (_database_of_noise, 3, ("quadbench.sqlite",)),
        (_pipe_as_database, 3, ("results/quadbench.sqlite",)),
        (_missing_inputs, 2, ("inputs.json", "0.name", "Field required")),
        (_wrong_foundation, 2, ("sample_size",)),
        (
            lambda folder, tiny: ["run", str(tiny / "recipe.yaml"), "--devices", "virtual:none"],
            2,
            ("none",),
        ),
        (lambda folder, tiny: ["run", str(tiny / "recipe.yaml"), "--devices", ","], 2, ("--devices ',' has no device",)),
        (lambda folder, tiny: ["lint", "nothing"], 3, ("nothing/manifest.json",)),
        (lambda folder, tiny: ["report", "../../etc/passwd"], 3, ("has no runs yet",)),
    ],
)
def test_the_command_says_it_with_its_exit_code(
    prepare: Callable[[Path, Path], list[str]], code: int, words: tuple[str, ...], tiny_recipe: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "quadbench", *prepare(tmp_path, tiny_recipe.parent)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (result.returncode, "Traceback" in result.stderr) == (code, False), result.stderr
    says(result.stderr, *words)
