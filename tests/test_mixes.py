"""Adapters with weights, and several at once: what a mix adds, what diffusers makes of the same, and what the files hold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from peft import PeftModel  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from support.sentences import raising  # noqa: E402

from quadbench import pipeline, zoo  # noqa: E402
from quadbench.artifacts import LORA_PREFIX, Component, Status, StoredBundle, Variant  # noqa: E402
from quadbench.artifacts.pixels import max_abs_difference, read_pixels  # noqa: E402
from quadbench.artifacts.run_record import adapters_of, factors_of  # noqa: E402
from quadbench.devices.addresses import parse_addresses  # noqa: E402
from quadbench.errors import ArtifactError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, graph_tensors, merge, mix_adapters, shared_ranks  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.items import Encoders, prepare_task, task_items  # noqa: E402
from quadbench.quad.model.float_graphs import copy_of_modules  # noqa: E402
from quadbench.quad.model.foundation import Foundation, load_foundation  # noqa: E402
from quadbench.quad.model_files import AdapterFormat, AdapterSource  # noqa: E402
from quadbench.quad.reference import Reference, with_adapters  # noqa: E402
from quadbench.quad.runner import mixed_inputs  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

WEIGHTS = [{"first": weight} for weight in (0.0, 0.5, 1.0, 1.5, -1.0)] + [{"first": 1.0, "second": 0.8}]


@pytest.fixture(scope="module")
def adapters(tiny_recipe: Path, foundation: Foundation) -> dict[str, Adapter]:
    base = sites_of_unet(foundation.skeleton)
    return {name: load_adapter(name, tiny_recipe.parent / "adapters" / name, base) for name in ("first", "second")}


def eps(unet: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    sample, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 16, generator=generator)
    with torch.no_grad():
        return unet(sample, torch.tensor(500), text).sample


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_mix_does_what_set_adapters_of_diffusers_does(
    tiny_recipe: Path, foundation: Foundation, adapters: dict[str, Adapter], weights: dict[str, float]
) -> None:
    ours = copy_of_modules(foundation.unet)
    merge(mix_adapters(adapters, weights), ours)
    folder = tiny_recipe.parent / "adapters"
    sources = {name: AdapterSource(format=AdapterFormat.PEFT, path=folder / name) for name in weights}
    torch.testing.assert_close(eps(ours), eps(with_adapters(foundation.unet, sources, weights)), atol=1e-5, rtol=1e-5)


def test_a_mix_of_files_of_several_formats_is_loaded_beside_each_other(
    tiny_recipe: Path, tmp_path: Path, foundation: Foundation, adapters: dict[str, Adapter]
) -> None:
    from safetensors.torch import save_file

    flat = {site.replace(".", "_"): pair for site, pair in adapters["second"].pairs.items()}
    tensors = {
        f"lora_unet_{site}.lora_{part}.weight": getattr(pair, part) for site, pair in flat.items() for part in ("down", "up")
    }
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "second.safetensors")
    sources = {
        "second": AdapterSource(format=AdapterFormat.KOHYA, path=tmp_path / "second.safetensors"),
        "first": AdapterSource(format=AdapterFormat.PEFT, path=tiny_recipe.parent / "adapters" / "first"),
    }
    weights = {"first": 0.5, "second": 1.5}
    ours = copy_of_modules(foundation.unet)
    merge(mix_adapters(adapters, weights), ours)
    torch.testing.assert_close(eps(ours), eps(with_adapters(foundation.unet, sources, weights)), atol=1e-5, rtol=1e-5)


def test_ranks_of_a_mix_add_up_where_both_have_the_site(adapters: dict[str, Adapter]) -> None:
    mix = mix_adapters(adapters, {"first": 1.0, "second": 0.5})
    first, second = (adapters[name].pairs for name in ("first", "second"))
    for site, pair in mix.pairs.items():
        assert pair.rank == sum(part[site].rank for part in (first, second) if site in part)
    assert mix.pairs.keys() == first.keys() | second.keys()
    assert shared_ranks([mix])["mid_block.attentions.0.transformer_blocks.0.attn1.to_q"] == 10


def test_no_adapter_is_no_mix(adapters: dict[str, Adapter]) -> None:
    assert mix_adapters(adapters, {}) is None
    assert mix_adapters(adapters, {"first": 1.0}) is adapters["first"]


@pytest.fixture(scope="module")
def recipe_of_mixes(tiny_recipe: Path) -> Path:
    """Write the tiny recipe with weights: `first` at 1.5, and at 0.5 beside `second`."""
    text = tiny_recipe.read_text().replace("adapter: first", "adapter: {first: 1.5}")
    text = text.replace("adapter: second", "adapter: {second: 1.0, first: 0.5}").replace("scheme: olss", "scheme: ed")
    path = tiny_recipe.with_name("mixes.yaml")
    path.write_text(text.replace("name: tiny", "name: mixes"))
    return path


@pytest.fixture(scope="module")
def outcome(recipe_of_mixes: Path, tmp_path_factory: pytest.TempPathFactory) -> pipeline.RunOutcome:
    from support.watcher import Silent

    layout = Layout(tmp_path_factory.mktemp("mixes"))
    return pipeline.run(load_recipe(recipe_of_mixes), parse_addresses(["local"]), layout=layout, observer=Silent())


@pytest.mark.slow
def test_a_file_holds_the_greatest_weight_and_tasks_say_what_they_take(outcome: pipeline.RunOutcome) -> None:
    bundle = outcome.result.bundle
    assert {(file.name, file.weight) for file in bundle.adapters} == {("first", 1.5), ("second", 1.0)}
    assert [(task.adapter, task.mix) for task in bundle.tasks] == [
        ("first:1.5", {"first": 1.5}),
        ("first:0.5+second", {"first": 0.5, "second": 1.0}),
        (None, None),
    ]
    files = adapters_of(bundle, Variant.SHARED, bundle.tasks)
    assert [factors_of(task, files) for task in bundle.tasks] == [{"first": 1.0}, {"first": 0.5 / 1.5, "second": 1.0}, {}]


@pytest.mark.slow
def test_every_variant_paints_what_the_reference_shows(outcome: pipeline.RunOutcome) -> None:
    ended = {record.variant: (record.status, record.reason) for record in outcome.result.records}
    assert ended == dict.fromkeys((Variant.FLOAT, Variant.SHARED, Variant.PER_GRAPH), (Status.OK, None))
    (exact,) = [record for record in outcome.result.records if record.variant is Variant.FLOAT]
    differences = [sample.value for sample in exact.samples if sample.metric == "max_abs_difference"]
    assert max(differences) <= 2


@pytest.mark.slow
def test_the_rom_of_a_mix_is_that_of_its_files_and_each_lies_there_once(outcome: pipeline.RunOutcome) -> None:
    from quadbench.report.kpi import kpi_rows
    from quadbench.report.storage import storage_views

    files = {file.name: file.file.size_bytes for file in outcome.result.bundle.adapters if file.variant is Variant.SHARED}
    rows = {row.task: row.shared for row in kpi_rows(outcome.result) if row.key == "lora_rom"}
    assert (rows["change"].value, rows["fill"].value) == (files["first"], sum(files.values()))
    (storage,) = storage_views(outcome.result)
    change, fill, imagine = storage.measured
    assert (fill.adapter, fill.adapter_bytes) == ("first:0.5+second", sum(files.values()))
    assert fill.shared_bytes - change.shared_bytes == files["second"]
    assert imagine.shared_bytes == fill.shared_bytes


def lora_inputs_of(stored: StoredBundle) -> Iterator:
    unet = next(g for g in stored.artifact.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)
    return [spec for spec in unet.inputs if spec.name.startswith(LORA_PREFIX)]


@pytest.mark.slow
def test_the_loaded_integers_of_a_mix_are_those_of_its_floats(
    outcome: pipeline.RunOutcome, recipe_of_mixes: Path, adapters: dict[str, Adapter]
) -> None:
    stored, inputs = outcome.result.stored, lora_inputs_of(outcome.result.stored)
    files = adapters_of(stored.artifact, Variant.FLOAT, stored.artifact.tasks)
    fill = stored.artifact.tasks[1]
    parts = [(stored.path(files[name].file), factor) for name, factor in factors_of(fill, files).items()]
    floats = mixed_inputs(parts, [type(spec)(name=spec.name, shape=spec.shape, dtype="float32") for spec in inputs])
    expected = graph_tensors(mix_adapters(adapters, fill.weights), {spec.name: spec.shape for spec in inputs})
    for name, tensor in expected.items():
        np.testing.assert_allclose(floats[name], tensor.numpy(), rtol=1e-6, atol=1e-9)


@pytest.mark.slow
def test_a_mix_that_the_graph_has_no_room_for_is_refused(outcome: pipeline.RunOutcome) -> None:
    stored, inputs = outcome.result.stored, lora_inputs_of(outcome.result.stored)
    path = stored.path(adapters_of(stored.artifact, Variant.SHARED, stored.artifact.tasks)["second"].file)
    with raising(ArtifactError, "or a smaller rank, as 6 ranks are already in use"):
        mixed_inputs([(path, 1.0)] * 2, inputs)


@pytest.mark.slow
def test_a_factor_scales_up_alone_and_rounds_to_the_nearest_integer(outcome: pipeline.RunOutcome) -> None:
    stored, inputs = outcome.result.stored, lora_inputs_of(outcome.result.stored)
    path = stored.path(adapters_of(stored.artifact, Variant.SHARED, stored.artifact.tasks)["second"].file)
    whole, half = (mixed_inputs([(path, factor)], inputs) for factor in (1.0, 0.5))
    for name in load_file(path):
        expected = np.rint(whole[name] * 0.5) if name.endswith(".up") else whole[name]
        assert np.array_equal(half[name], expected)


@pytest.mark.slow
def test_weights_below_one_leave_the_bits_to_them(tiny_recipe: Path, tmp_path: Path) -> None:
    path = tiny_recipe.with_name("half.yaml")
    text = tiny_recipe.read_text().replace("adapter: first", "adapter: {first: 0.5}").replace("scheme: olss", "scheme: ed")
    path.write_text(text.replace("baselines: [per-graph]", "baselines: []"))
    stored = build(load_recipe(path), Layout(tmp_path))
    (file,) = [f for f in stored.artifact.adapters if f.name == "first" and f.variant is Variant.SHARED]
    only = [name for name in load_file(stored.path(file.file)) if ".conv1." in name]  # sites that `second` lacks
    assert file.weight == 0.5
    assert {int(np.abs(load_file(stored.path(file.file))[name]).max()) for name in only} == {32767}


@pytest.mark.slow
def test_built_in_adapters_with_weights_paint_what_diffusers_and_peft_paint(tmp_path: Path) -> None:
    from support.watcher import Silent

    recipe = load_recipe("adapter-weights", {"baselines": [], "measure.iterations": 2, "measure.launches": 1})
    outcome = pipeline.run(recipe, parse_addresses(["local"]), layout=Layout(tmp_path), observer=Silent())
    foundation = load_foundation(zoo.foundation_folder("emoji-ldm"))
    (exact,) = [record for record in outcome.result.records if record.variant is Variant.FLOAT]
    for task in recipe.tasks:
        item = task_items(task, foundation, calibration_samples=4).evaluation[0]
        expected = np.asarray(diffusers_reference(foundation, task).render(item))
        painted = read_pixels(tmp_path / exact.images[f"{task.name}/{item.name}"])
        assert max_abs_difference(painted, expected) <= 2, task.name


def diffusers_reference(foundation: Foundation, task: object) -> Reference:
    """Return a pipeline of diffusers whose U-Net PEFT has loaded the adapters into, weighed by `set_adapters`."""
    folders = {name: str(zoo.adapter_folder(name)) for name in task.adapter}
    first, *others = folders
    model = PeftModel.from_pretrained(copy_of_modules(foundation.unet), folders[first], adapter_name=first)
    for name in others:
        model.load_adapter(folders[name], adapter_name=name)
    unet = model.get_base_model().eval()
    unet.set_adapters(list(folders), [task.adapter[name] for name in folders])
    encoders = Encoders(foundation=foundation, text_encoder=None, vae_encoder=None)
    items = task_items(task, foundation, calibration_samples=4)
    table = prepare_task(task, items, encoders, None, {}).table
    return Reference(foundation=foundation, task=task, table=table, unet=unet)
