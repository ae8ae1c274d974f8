"""Sensitivity of adapters to the rounding of their weights, and the anchor that follows from it."""

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from quadbench.artifacts import Bundle, Stored  # noqa: E402
from quadbench.errors import SpecError  # noqa: E402
from quadbench.quad.adapters import Adapter, LoraPair  # noqa: E402
from quadbench.quad.adapters.lora_profile import lora_encodings, lora_ranges, site_fits  # noqa: E402
from quadbench.quad.analyse import analyse  # noqa: E402
from quadbench.quad.build import build  # noqa: E402
from quadbench.quad.divergence import (  # noqa: E402
    Bins,
    DivergenceScore,
    bins_over,
    divergence,
    jensen_shannon,
    kendall_tau,
    score,
)
from quadbench.quad.model.lora import input_names  # noqa: E402
from quadbench.quad.sensitivity import (  # noqa: E402
    AdapterSensitivity,
    Agreement,
    UnetSample,
    adapter_sensitivity,
    choose_anchor,
)
from quadbench.quad.tasks.runner import Feed  # noqa: E402
from quadbench.recipe import load_recipe  # noqa: E402
from quadbench.results.layout import Layout  # noqa: E402

SITES = ("first", "second")
RANK, SIZE = 4, 64
SHAPES = {name: shape for site in SITES for name, shape in zip(input_names(site), ((RANK, SIZE), (SIZE, RANK)), strict=True)}


def _histogram(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(16))


def _adapter(name: str = "tame", *, stretch: float = 1.0) -> Adapter:
    """Draw an adapter. `stretch` multiplies a row of `down` and divides that column of `up`: only the range grows."""
    generator = torch.Generator().manual_seed(0)
    pairs = {}
    for site in SITES:
        down, up = torch.randn(RANK, SIZE, generator=generator), torch.randn(SIZE, RANK, generator=generator)
        down[0] *= stretch
        up[:, 0] /= stretch
        pairs[site] = LoraPair(down=down, up=up)
    return Adapter(name=name, pairs=pairs)


def _linear(feed: Feed) -> torch.Tensor:
    """Run a U-Net of two linear sites: x + sum of up (down x)."""
    x = feed["sample"]
    terms = [feed[up] @ (feed[down] @ x) for down, up in map(input_names, SITES)]
    return torch.from_numpy((x + sum(terms) / SIZE).astype(np.float32))


def _samples(count: int = 6) -> list[UnetSample]:
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((SIZE, 16)).astype(np.float32) for _ in range(count)]
    return [UnetSample(task="draw", step=i % 3, timestep=900.0 - i % 3, feed={"sample": x}) for i, x in enumerate(draws)]


def _scores_of(adapter: Adapter, dtype: str = "int8", unet: Callable[[Feed], torch.Tensor] = _linear) -> AdapterSensitivity:
    return adapter_sensitivity(adapter, _samples(), unet=unet, shapes=SHAPES, dtype=dtype)


def _scored(adapter: str, js: float, error: float | None) -> AdapterSensitivity:
    return AdapterSensitivity(
        adapter=adapter,
        score=DivergenceScore(js=js, mse=js, sqnr_db=30.0, samples=8),
        js_standard_error=error,
        steps=(),
        sites=(),
        site_agreement=Agreement(mse=None, sqnr=None),
    )


def test_equal_histograms_do_not_diverge() -> None:
    assert jensen_shannon(_histogram(0), _histogram(0)) == 0


def test_jensen_shannon_is_symmetric() -> None:
    p, q = _histogram(0), _histogram(1)
    assert jensen_shannon(p, q) == pytest.approx(jensen_shannon(q, p))
    assert jensen_shannon(p, q) > 0


def test_jensen_shannon_is_one_where_nothing_is_shared() -> None:
    assert jensen_shannon(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(1.0)
    assert all(0 < jensen_shannon(_histogram(i), _histogram(i + 1)) < 1 for i in range(20))


def test_values_outside_the_float_run_count_in_the_outermost_bins() -> None:
    bins = Bins(low=0.0, high=1.0, count=4)
    assert bins.histogram(np.array([-5.0, 0.1, 0.3, 7.0])).tolist() == [0.5, 0.25, 0.0, 0.25]


def test_a_constant_output_has_a_histogram() -> None:
    constant = np.zeros(8, np.float32)
    equal = divergence(constant, constant, bins_over([constant]))
    assert (equal.js, equal.mse) == (0, 0)


def test_sqnr_is_of_all_samples_together() -> None:
    exact, bins = np.ones(4), Bins(low=0.0, high=2.0)
    assert score([divergence(exact, exact + error, bins) for error in (0.0, math.sqrt(0.02))]).sqnr_db == pytest.approx(20.0)
    assert score([divergence(exact, exact, bins)]).sqnr_db is None


def test_rank_agreement() -> None:
    assert kendall_tau([1, 2, 3], [10, 20, 90]) == 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == -1
    assert kendall_tau([1, 2, 3, 4], [1, 2, 4, 3]) == pytest.approx(4 / 6)
    assert kendall_tau([1, 2, 3], [-math.inf, 2, math.inf]) == 1
    assert kendall_tau([1, 2, 3], [5, 5, 5]) is None
    assert kendall_tau([1], [1]) is None


def test_rank_agreement_counts_ties_as_tau_b_does() -> None:
    assert kendall_tau([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(5 * 6))


def test_fewer_bits_are_more_sensitive() -> None:
    coarse, fine = _scores_of(_adapter(), "int8").score, _scores_of(_adapter(), "int16").score
    assert coarse.js > fine.js
    assert coarse.mse > 1000 * fine.mse
    assert coarse.sqnr_db is not None
    assert fine.sqnr_db is not None
    assert fine.sqnr_db == pytest.approx(coarse.sqnr_db + 48, abs=3)  # 8 bits of 6.02 dB


def test_a_tenfold_range_within_a_tensor_is_more_sensitive() -> None:
    tame, wild = _scores_of(_adapter()), _scores_of(_adapter("wild", stretch=10.0))
    assert wild.score.js > tame.score.js
    assert wild.score.mse > 10 * tame.score.mse
    assert choose_anchor([tame, wild]).anchor == "wild"


def test_steps_and_sites_are_scored_apart() -> None:
    scores = _scores_of(_adapter())
    assert [(s.step, s.score.samples) for s in scores.steps] == [(0, 2), (1, 2), (2, 2)]
    assert {s.site for s in scores.sites} == set(SITES)
    assert all(s.score.samples == 4 for s in scores.sites)
    assert scores.sites[0].score.mse >= scores.sites[1].score.mse
    assert scores.score.mse == pytest.approx(sum(s.score.mse for s in scores.sites), rel=0.3)  # rounding errors hardly correlate


def test_an_adapter_that_changes_nothing_is_not_sensitive() -> None:
    scores = _scores_of(_adapter(), unet=lambda feed: torch.from_numpy(feed["sample"]))
    assert scores.score.js == 0
    assert scores.score.sqnr_db is None


def test_the_anchor_is_the_most_sensitive() -> None:
    choice = choose_anchor([_scored("low", 0.1, 0.01), _scored("high", 0.2, 0.01), _scored("middle", 0.15, 0.01)])
    assert choice.anchor == "high"
    assert "'high' and 'middle' differ by 0.05" in choice.reason


def test_within_twice_the_standard_error_adapters_are_equally_sensitive() -> None:
    choice = choose_anchor([_scored("a", 0.20, 0.03), _scored("b", 0.11, 0.04)])
    assert choice.anchor is None
    assert choice.reason.startswith(
        "equally sensitive: QSS of 'a' and 'b' differ by 0.09, twice the standard error of that is 0.1"
    )
    assert choose_anchor([_scored("a", 0.22, 0.03), _scored("b", 0.11, 0.04)]).anchor == "a"


def test_equal_scores_without_spread_are_equal() -> None:
    assert choose_anchor([_scored("a", 0.0, 0.0), _scored("b", 0.0, 0.0)]).anchor is None


def test_a_single_sample_decides_nothing() -> None:
    assert choose_anchor([_scored("a", 0.9, None), _scored("b", 0.1, 0.01)]).anchor is None


def test_the_only_adapter_is_the_anchor() -> None:
    assert choose_anchor([_scored("a", 0.1, None)]).anchor == "a"


def test_effective_bits_are_those_that_the_adapter_uses() -> None:
    adapter = _adapter()
    own, wide = (lora_encodings(lora_ranges([adapter]), headroom=h, dtype="int8") for h in (1.0, 4.0))
    assert all(fit.effective_bits == pytest.approx(math.log2(255)) for fit in site_fits(adapter, own))
    assert all(fit.effective_bits == pytest.approx(math.log2(255) - 2, abs=0.05) for fit in site_fits(adapter, wide))
    assert all(fit.clipped == 0 and fit.weights == 2 * RANK * SIZE for fit in site_fits(adapter, own))


def test_a_recipe_is_analysed_on_the_trajectories_of_its_own_tasks(tiny_recipe: Path) -> None:
    sensitivity = analyse(load_recipe(tiny_recipe), lora="int8")
    first, second = sensitivity.adapters
    # One calibration input each: 4 steps with guidance run the U-Net twice, 2 steps without it once.
    assert [(s.task, s.step, s.score.samples) for s in first.steps] == [("change", i, 2) for i in range(4)]
    assert [(s.task, s.step, s.score.samples) for s in second.steps] == [("fill", i, 1) for i in range(2)]
    assert all(0 < s.score.js < 1 and s.score.mse > 0 for s in sensitivity.adapters)
    assert all(s.sites for s in sensitivity.adapters)
    assert sensitivity.choice.anchor in (None, "first", "second")
    json.loads(json.dumps(sensitivity.adapters[0].score.js, allow_nan=False))


def test_an_adapter_that_no_task_uses_is_scored_on_all_tasks(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "unused"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("adapter: second", "adapter: first"))
    sensitivity = analyse(load_recipe(recipe), lora="int8")
    assert {s.task for s in sensitivity.adapters[1].steps} == {"change", "fill", "imagine"}


def test_a_recipe_without_an_anchor_builds_and_says_what_chose_it(tiny_recipe: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_recipe.parent, tmp_path / "open"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("scheme: unified", "scheme: anchor").replace("[per-graph]", "[]"))
    bundle = build(load_recipe(recipe), Layout(tmp_path / "results"))
    profile = json.loads(bundle.path(bundle.artifact.profile).read_text())
    assert profile["chosen_by"] == "sensitivity"
    assert profile["anchor"] == profile["sensitivity"]["choice"]["anchor"]
    assert [s["adapter"] for s in profile["sensitivity"]["adapters"]] == ["first", "second"]


def test_the_profile_says_how_each_adapter_sits_in_it(tiny_bundle: Stored[Bundle]) -> None:
    profile = json.loads(tiny_bundle.path(tiny_bundle.artifact.profile).read_text())
    assert (profile["anchor"], profile["chosen_by"], profile["sensitivity"]) == (None, "recipe", None)
    assert [row["adapter"] for row in profile["adapters"]] == ["first", "second"]
    for row in profile["adapters"]:
        assert row["clip_rate"] == 0
        assert all(0 < site["effective_bits"] <= 16 and site["sqnr_db"] > 60 for site in row["sites"])


def test_calibration_on_the_anchor_needs_its_name(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        tiny_recipe.read_text().replace("scheme: unified", "scheme: anchor").replace("scheme: joint", "scheme: anchor")
    )
    with pytest.raises(SpecError, match=r"quad\.calibration\.scheme: 'anchor' needs the profile's adapter by name"):
        load_recipe(recipe)


def test_an_open_anchor_needs_adapters(tiny_recipe: Path, tmp_path: Path) -> None:
    text = tiny_recipe.read_text().replace("scheme: unified", "scheme: anchor")
    text = re.sub(r"adapters:\n.*\n.*\n", "adapters: {}\n", text)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(re.sub(r"adapter: (first|second)", "adapter: null", text))
    with pytest.raises(SpecError, match=r"quad\.profile\.scheme: 'anchor' needs an adapter; the recipe has none"):
        load_recipe(recipe)
