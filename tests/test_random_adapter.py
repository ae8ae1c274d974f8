"""Random adapters: how large they are, and that a bundle and a run with them claim nothing about pictures."""

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from support.sentences import says  # noqa: E402
from test_pipeline import Watcher  # noqa: E402

from quadbench import pipeline  # noqa: E402
from quadbench.artifacts import Caveat, Status, StoredBundle, Variant  # noqa: E402
from quadbench.devices.addresses import parse_addresses  # noqa: E402
from quadbench.quad.adapters.adapter import random_adapter  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.model.foundation import load_foundation, random_module  # noqa: E402
from quadbench.recipe import Recipe  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

LINEAR = ("attention", "feed-forward", "projection")


@pytest.fixture(scope="module")
def random_recipe(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny model with a random adapter for its inpainting task, whose first adapter stays as trained."""
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path_factory.mktemp("random") / "recipe"))
    text = (folder / "recipe.yaml").read_text()
    text = text.replace(
        "second: {source: peft, path: adapters/second}", "second: {source: random, rank: 3, sites: [convolution]}"
    )
    (folder / "recipe.yaml").write_text(text.replace("baselines: [per-graph]", "baselines: []"))
    return load_recipe(folder / "recipe.yaml")


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return Layout(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def random_bundle(random_recipe: Recipe, layout: Layout) -> StoredBundle:
    return build(random_recipe, layout)


@pytest.mark.parametrize(("geometry", "rank", "megabytes"), [("sd15", 140, 119), ("bk-sdm-base", 142, 77)])
def test_the_scale_recipes_adapters_have_the_papers_bytes(geometry: str, rank: int, megabytes: int) -> None:
    with torch.device("meta"):
        unet = random_module(geometry, "unet", seed=0)
    adapter = random_adapter("a", unet, rank=rank, kinds=LINEAR, seed=0)
    weights = sum(pair.down.numel() + pair.up.numel() for pair in adapter.pairs.values())
    assert round(2 * weights / 1e6) == megabytes


def test_the_same_seed_gives_the_same_adapter(tiny_recipe: Path) -> None:
    unet = load_foundation(tiny_recipe.parent / "model").skeleton
    first, again, other = (random_adapter("a", unet, rank=2, kinds=("attention",), seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first.pairs[site].down, again.pairs[site].down) for site in first.pairs)
    assert not all(torch.equal(first.pairs[site].down, other.pairs[site].down) for site in first.pairs)


def test_kinds_choose_the_sites(tiny_recipe: Path) -> None:
    unet = load_foundation(tiny_recipe.parent / "model").skeleton
    sites = random_adapter("a", unet, rank=2, kinds=("feed-forward", "convolution"), seed=0).pairs
    assert {site.rpartition(".")[2] for site in sites} == {"proj", "2", "conv1", "conv2", "conv_shortcut"}


def test_its_effect_on_a_weight_is_a_tenth_of_the_weight() -> None:
    block = torch.nn.ModuleDict({"attn": torch.nn.ModuleDict({"to_q": torch.nn.Linear(320, 320)})})
    pair = random_adapter("a", block, rank=16, kinds=("attention",), seed=0).pairs["attn.to_q"]
    assert float((pair.up @ pair.down).std() / block["attn"]["to_q"].weight.detach().std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.slow
def test_a_bundle_with_random_weights_says_so(random_bundle: StoredBundle) -> None:
    assert random_bundle.artifact.caveats == (Caveat.RANDOM_WEIGHTS,)


@pytest.mark.slow
def test_a_bundle_with_random_weights_has_no_reference_images(random_bundle: StoredBundle) -> None:
    assert {item.reference for task in random_bundle.artifact.tasks for item in task.items} == {None}
    assert not (random_bundle.folder / "reference").exists()


def test_a_bundle_with_trained_weights_has_no_caveat(tiny_bundle: StoredBundle) -> None:
    assert tiny_bundle.artifact.caveats == ()


@pytest.fixture(scope="module")
def random_run(random_recipe: Recipe, random_bundle: StoredBundle, layout: Layout) -> pipeline.RunOutcome:
    """A run of the bundle that was built, on this machine."""
    watcher = Watcher()
    outcome = pipeline.run(random_recipe, parse_addresses(["local"]), layout=layout, observer=watcher)
    assert watcher.reuses == ["bundle"]
    assert outcome.result.bundle == random_bundle.artifact
    return outcome


@pytest.mark.slow
def test_a_run_with_random_weights_measures_but_judges_no_picture(random_run: pipeline.RunOutcome) -> None:
    assert [(r.variant, r.status) for r in random_run.result.records] == [(Variant.SHARED, Status.OK)]
    metrics = {sample.metric for record in random_run.result.records for sample in record.samples}
    assert {"end_to_end_ns", "rom_bytes"} <= metrics
    assert not {"psnr_db", "max_abs_difference"} & metrics


@pytest.mark.slow
def test_the_caveat_of_random_weights_reaches_records_and_report(random_run: pipeline.RunOutcome) -> None:
    assert all(Caveat.RANDOM_WEIGHTS in record.caveats for record in random_run.result.records)
    page = random_run.report.read_text()
    assert Caveat.RANDOM_WEIGHTS.advice in page
    says(page, "The weights are random, so there are no reference pictures.")
