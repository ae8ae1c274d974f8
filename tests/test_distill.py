"""Distillation wins something back, goes on after an interruption, and touches nothing but the adapter."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.numpy import load_file  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench.artifacts import Bundle, Component, Variant  # noqa: E402
from quadbench.errors import SpecError, UserError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, LoraPair  # noqa: E402
from quadbench.quad.adapters.lora_profile import LoraProfile, align_gauge, lora_profile  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.distill import (  # noqa: E402
    TRAINING_SEEDS,
    VALIDATION_SEEDS,
    DistilledAdapter,
    Example,
    Student,
    TrainingSettings,
    distill,
    examples,
    reseeded,
    split_items,
)
from quadbench.quad.inputs import check_references  # noqa: E402
from quadbench.quad.items import PreparedTask, fixed_table, task_items  # noqa: E402
from quadbench.quad.model.foundation import load_foundation  # noqa: E402
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, prepare  # noqa: E402
from quadbench.quad.quantize.fake_quant import FakeQuantGraph  # noqa: E402
from quadbench.quad.quantize.quantizer import CalibratedGraph, ObservedGraph, write_qdq  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

SETTINGS = TrainingSettings(steps=8, batch=2, learning_rate=2e-2, diffusion_weight=0.0, patience=4, seed=0, evaluate_every=4)


@dataclass(frozen=True, kw_only=True)
class Case:
    """An adapter that does not fit the LoRA profile: its product reaches four times beyond the shared ranges."""

    prepared: PreparedRecipe
    profile: LoraProfile
    adapter: Adapter
    graph: FakeQuantGraph
    training: list[Example]
    validation: list[Example]

    def distill(self, **options: object) -> DistilledAdapter:
        arguments = {"settings": SETTINGS, "training": self.training, "validation": self.validation} | options
        student = Student(graph=self.graph, shapes=self.prepared.shapes, encodings=self.profile.encodings)
        return distill(self.adapter, student, **arguments)


@pytest.fixture(scope="module")
def case(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    with torch.no_grad():
        prepared = prepare(
            load_recipe(tiny_recipe, {"quad.calibration.samples": 2}), BuildSteps(), tmp_path_factory.mktemp("scratch")
        )
        profile = lora_profile(list(prepared.adapters.values()), anchor=None, gauge=True, headroom=1.0, dtype="int8")
        first = prepared.adapters["first"]
        wide = Adapter(name="first", pairs={s: LoraPair(down=p.down * 2, up=p.up * 2) for s, p in first.pairs.items()})
        adapter = align_gauge(wide, {name: e.scale * e.limit for name, e in profile.encodings.items()})
        feeds = [feed | prepared.feed(a) for feed in prepared.visits["change"].feeds for a in (wide, None)]
        student = write_qdq(CalibratedGraph(ObservedGraph(prepared.models[Component.UNET], feeds)), lora=profile.encodings)
        items = split_items(prepared, wide)
        training = examples(prepared, wide, items.training, seeds=(1, 2), noised=True)
        validation = examples(prepared, wide, items.validation, seeds=(3,), noised=False)[:4]
    graph = FakeQuantGraph(student.model)
    return Case(prepared=prepared, profile=profile, adapter=adapter, graph=graph, training=training, validation=validation)


@pytest.fixture(scope="module")
def whole(case: Case) -> DistilledAdapter:
    return case.distill()


@pytest.mark.slow
def test_some_of_what_clipping_costs_is_won_back(whole: DistilledAdapter) -> None:
    assert whole.after_db > whole.before_db + 0.5
    assert whole.after_db == max(evaluation.sqnr_db for evaluation in whole.evaluations)


@pytest.mark.slow
def test_what_comes_out_stays_within_the_shared_ranges(case: Case) -> None:
    for site, pair in case.distill(settings=replace(SETTINGS, steps=2)).adapter.pairs.items():
        for name, tensor in ((f"lora.{site}.down", pair.down), (f"lora.{site}.up", pair.up)):
            encoding = case.profile.encodings[name]
            assert float(tensor.abs().max()) <= encoding.scale * encoding.limit * (1 + 1e-6)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_adapter_and_another_does_not(case: Case) -> None:
    few = replace(SETTINGS, steps=4)
    one, two, three = (case.distill(settings=replace(few, seed=seed)) for seed in (0, 0, 1))
    site = next(iter(one.adapter.pairs))
    assert torch.equal(one.adapter.pairs[site].up, two.adapter.pairs[site].up)
    assert not torch.equal(one.adapter.pairs[site].up, three.adapter.pairs[site].up)


@pytest.mark.slow
def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not_been(
    case: Case, whole: DistilledAdapter, tmp_path: Path
) -> None:
    class InterruptionError(Exception):
        pass

    def interrupt(_progress: str) -> None:
        raise InterruptionError

    checkpoint = tmp_path / "first.pt"
    with pytest.raises(InterruptionError):
        case.distill(checkpoint=checkpoint, notify=_after(2, interrupt))
    seen: list[str] = []
    resumed = case.distill(checkpoint=checkpoint, notify=seen.append)
    assert len(seen) == 1
    assert resumed.evaluations == whole.evaluations
    assert all(torch.equal(resumed.adapter.pairs[site].up, pair.up) for site, pair in whole.adapter.pairs.items())


def _after(count: int, act: Callable[[str], None]) -> Callable[[str], None]:
    """Stay silent until the call with this number."""
    calls = iter(range(1, count))

    def notify(progress: str) -> None:
        if next(calls, None) is None:
            act(progress)

    return notify


@pytest.mark.slow
def test_training_that_brings_nothing_ends_early_and_keeps_what_came_in(case: Case) -> None:
    distilled = case.distill(settings=replace(SETTINGS, steps=500, learning_rate=1e-12, patience=1))
    assert distilled.steps == 4
    assert distilled.after_db == pytest.approx(distilled.before_db)


@pytest.mark.slow
def test_half_of_the_examples_know_their_noise(case: Case) -> None:
    noised = [example for example in case.training if example.target is not None]
    assert 0 < len(noised) < len(case.training)
    assert all(example.target is None for example in case.validation)
    alpha = float(case.prepared.foundation.schedule.alpha(case.prepared.tasks[0].table.timesteps[0]))
    example = noised[0]
    rest = torch.from_numpy(example.feed["sample"]) - (1 - alpha) ** 0.5 * example.target
    assert float((rest / alpha**0.5).square().mean()) > 0
    assert not torch.equal(example.teacher, example.target)


@pytest.mark.slow
def test_a_recipe_distills_its_adapters_and_leaves_the_base_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "model"))
    path = folder / "recipe.yaml"
    distill_key = "quad:\n  distill: {adapters: [first], steps: 2, batch: 2}\n"
    path.write_text(path.read_text().replace("quad:\n", distill_key).replace("baselines: [per-graph]\n", ""))
    layout = Layout(tmp_path / "results")
    two = {"quad.calibration.samples": 2}
    distilled, plain = (build(load_recipe(path, two | changes), layout) for changes in ({}, {"quad.distill": None}))

    def sha(of: Bundle, component: Component) -> str:
        return next(g.file.sha256 for g in of.graphs if (g.variant, g.component) == (Variant.SHARED, component))

    assert sha(distilled.artifact, Component.UNET) == sha(plain.artifact, Component.UNET)
    for name, is_equal in (("first", False), ("second", True)):
        new, old = (load_file(b.folder / f"adapters/{name}.safetensors") for b in (distilled, plain))
        assert all(np.array_equal(new[key], old[key]) for key in old) is is_equal
        exact_new, exact_old = (load_file(b.folder / f"adapters/float/{name}.safetensors") for b in (distilled, plain))
        assert all(np.array_equal(exact_new[key], exact_old[key]) for key in exact_old)
    profile, untrained = (json.loads(b.path(b.artifact.profile).read_text()) for b in (distilled, plain))
    assert profile["adapters"] == untrained["adapters"]  # what sharing cost them, before any of that was won back
    rows = profile["distillation"]
    assert [row["adapter"] for row in rows] == ["first"]
    assert rows[0]["after_db"] >= rows[0]["before_db"]
    assert "distill" in distilled.artifact.build_seconds


@pytest.mark.slow
def test_an_unknown_adapter_to_distill_is_named_with_its_line(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    text = tiny_recipe.read_text().replace("samples: 1", "samples: 2")
    path.write_text(text.replace("quad:\n", "quad:\n  distill: {adapters: [frist]}\n"))
    with raising(SpecError, "quad.distill.adapters[0]", "frist"):
        load_recipe(path)


@pytest.mark.slow
def test_what_judges_an_adapter_are_other_images_than_those_that_train_it(case: Case) -> None:
    division = split_items(case.prepared, case.prepared.adapters["first"])
    training, validation = ({item.name for item in items["change"]} for items in (division.training, division.validation))
    assert training
    assert validation
    assert not training & validation


@pytest.fixture(scope="module")
def prompted(tiny_recipe: Path) -> PreparedTask:
    """A task of two prompts, which are five samples for calibration."""
    foundation, task = load_foundation(tiny_recipe.parent / "model"), load_recipe(tiny_recipe).tasks[2]
    table, items = fixed_table(task, foundation), task_items(task, foundation, calibration_samples=5)
    assert table is not None
    return PreparedTask(task=task, table=table, embedded={"time_features": torch.zeros(3, 4)}, items=items)


def test_a_prompt_that_calibrates_twice_either_trains_or_judges(prompted: PreparedTask) -> None:
    prepared = cast("PreparedRecipe", SimpleNamespace(tasks=[prompted]))
    division = split_items(prepared, Adapter(name="first", pairs={}))
    assert [item.name for item in division.training["imagine"]] == ["000"] * 3
    assert [item.name for item in division.validation["imagine"]] == ["001"] * 2


def test_no_two_runs_of_examples_see_the_same_noise(prompted: PreparedTask) -> None:
    runs = [reseeded(prompted, prompted.items.calibration, seed) for seed in (*TRAINING_SEEDS, *VALIDATION_SEEDS)]
    seeds = [item.seed for run in runs for item in run.items.calibration]
    assert len(set(seeds)) == len(seeds) == 25


def test_an_adapter_with_one_prompt_to_train_on_and_be_judged_by_is_refused(tiny_recipe: Path) -> None:
    changes = {"tasks.2.adapter": "first", "tasks.2.prompts": ["apple"], "tasks.0.adapter": "second"}
    recipe = load_recipe(tiny_recipe, {**changes, "quad.calibration.samples": 2, "quad.distill": {}})
    with raising(UserError, "quad.distill", "first", "imagine", 2):
        check_references(recipe)


@pytest.mark.slow
def test_distillation_with_nothing_to_judge_by_is_refused_at_its_line(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(tiny_recipe.read_text().replace("quad:\n", "quad:\n  distill: {}\n"))
    with raising(SpecError, "quad.distill", "quad.calibration.samples", 2, 1):
        load_recipe(path)
