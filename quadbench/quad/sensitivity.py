"""Sensitivity: measuring how much U-Net outputs change when LoRA weights are rounded, per adapter, layer, input and step."""

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch

from quadbench.errors import UserError
from quadbench.quad.adapters.adapter import Adapter, graph_tensors
from quadbench.quad.adapters.lora_profile import lora_encodings, lora_ranges
from quadbench.quad.divergence import BINS, Divergence, DivergenceScore, divergence, kendall_tau, score, spread
from quadbench.quad.items import CalibrationRun, PreparedTask, Unet
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import BuildSteps, Notify, PreparedRecipe, ignore_step, prepare
from quadbench.quad.quantize.encodings import dequantize, quantize
from quadbench.quad.runner import Feed, as_feed
from quadbench.recipe import Recipe
from quadbench.statistics import MIN_BLOCKS
from quadbench.statistics.launch_comparison import PairedComparison, compare_paired

log = logging.getLogger(__name__)
KeyT = TypeVar("KeyT")
SAMPLES = 4  # U-Net runs per trajectory, evenly spread
SITE_INPUTS = 8  # inputs, with one sample each, for rounding one site at a time


@dataclass(frozen=True, kw_only=True)
class UnetSample:
    """The inputs of a U-Net call, without the LoRA inputs, at one step of a calibration input's sampler run."""

    task: str
    item: str
    step: int
    timestep: float
    feed: Feed


@dataclass(frozen=True, kw_only=True)
class StepScore:
    """The mean error in noise predictions from rounding an adapter's weights, over all samples at one sampler step."""

    task: str
    step: int
    timestep: float
    score: DivergenceScore


@dataclass(frozen=True, kw_only=True)
class InputScore:
    """The mean error in noise predictions from rounding an adapter's weights, over all samples of one calibration input."""

    task: str
    item: str
    score: DivergenceScore


@dataclass(frozen=True, kw_only=True)
class SiteScore:
    """A layer's score: the U-Net's output error with only that layer's LoRA weights rounded. `below_worst` compares noise in dB:
    the noisiest layer's noise minus the scored layer's. It is None for the noisiest layer.
    """

    site: str
    score: DivergenceScore
    below_worst: PairedComparison | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau of adapter or layer ranks by Jensen-Shannon divergence with the ranks by MSE (`mse`) and by SQNR (`sqnr`)."""

    mse: float | None
    sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class AdapterSensitivity:
    """The change of U-Net outputs by rounding an adapter's weights: overall, per input, per step, per layer (noisiest first)."""

    adapter: str
    score: DivergenceScore
    inputs: tuple[InputScore, ...]
    steps: tuple[StepScore, ...]
    sites: tuple[SiteScore, ...]
    site_agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class AdapterComparison:
    """A comparison of two adapters on the same inputs. `first` causes `difference_db` dB more rounding noise than `second`."""

    first: str
    second: str
    difference_db: PairedComparison

    @property
    def described(self) -> str:
        """Return a sentence that says whether two adapters' rounding noise differs significantly, and by how many dB."""
        names, of = f"'{self.first}' and '{self.second}'", self.difference_db
        if of.pairs < MIN_BLOCKS:
            return f"{names} cannot be compared with {of.pairs} inputs; at least {MIN_BLOCKS} are needed"
        p = "" if of.sign_flip_p is None else f", p = {of.sign_flip_p:.2g}"
        figures = f"{of.mean:+.1f} dB of noise, 95 % interval {of.low:+.1f} to {of.high:+.1f}{p}, {of.pairs} inputs"
        return f"{names} {'differ' if of.is_told_apart else 'do not differ'} significantly: {figures}"


@dataclass(frozen=True, kw_only=True)
class AnchorChoice:
    """The adapter (`anchor`) whose quantization ranges all adapters use; None if no adapter is significantly most sensitive."""

    anchor: str | None
    reason: str
    comparisons: tuple[AdapterComparison, ...] = ()  # the most sensitive adapter against every other


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """Each adapter's sensitivity to rounding. `choice` names the adapter, if any, whose quantization ranges all adapters use."""

    lora: str
    bins: int
    adapters: tuple[AdapterSensitivity, ...]
    agreement: Agreement
    choice: AnchorChoice


def sensitivity(prepared: PreparedRecipe, *, dtype: str, site_inputs: int = SITE_INPUTS) -> Sensitivity:
    """Measure on common inputs how much rounding each adapter's weights changes U-Net outputs. Return a Sensitivity."""
    samples = [sample for task in prepared.tasks for sample in samples_of(task, prepared.visits[task.task.name])]
    scores, unet, shapes = [], prepared.unet, prepared.shapes
    for adapter in prepared.adapters.values():
        scores.append(adapter_sensitivity(adapter, samples, unet=unet, shapes=shapes, dtype=dtype, site_inputs=site_inputs))
        log.info("sensitivity: %s, SQNR %.1f dB over %d samples", adapter.name, -scores[-1].score.noise_db, len(samples))
    agreement = _agreement([s.score for s in scores])
    return Sensitivity(lora=dtype, bins=BINS, adapters=tuple(scores), agreement=agreement, choice=choose_anchor(scores))


def samples_of(prepared: PreparedTask, visited: CalibrationRun, most: int = SAMPLES) -> list[UnetSample]:
    """Return a list of U-Net calls: at most `most` per calibration input, evenly spread over the calls of its sampler run."""
    timesteps, items = prepared.table.timesteps, prepared.items.calibration
    of_item = len(visited.feeds) // len(items)
    runs = of_item // len(timesteps)
    return [
        UnetSample(
            task=prepared.task.name,
            item=item.name,
            step=index // runs,
            timestep=float(timesteps[index // runs]),
            feed=visited.feeds[number * of_item + index],
        )
        for number, item in enumerate(items)
        for index in spread(of_item, most)
    ]


def adapter_sensitivity(
    adapter: Adapter,
    samples: Sequence[UnetSample],
    *,
    unet: Unet,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    site_inputs: int = SITE_INPUTS,
) -> AdapterSensitivity:
    """Score how an adapter's rounded weights change U-Net outputs: all layers at once and, on fewer samples, each layer alone.

    Sample i uses rotation i of the adapter's balanced factors, so that no two samples share rounding errors.
    """
    balanced = adapter.balanced()

    def turn(sample: int) -> tuple[Feed, Feed]:
        turned = balanced.rotated(sample)
        exact = as_feed(graph_tensors(turned, shapes))
        encodings = lora_encodings(lora_ranges([turned]), headroom=1.0, dtype=dtype)  # ranges of this adapter alone
        return exact, {name: dequantize(quantize(exact[name], e), e) for name, e in encodings.items()}

    def run(sample: int, lora: Feed) -> np.ndarray:
        return unet(samples[sample].feed | lora).numpy()

    whole: list[Divergence] = []
    of_sites: dict[str, list[Divergence]] = {}
    few = _one_for_each_input(samples, site_inputs)
    for index in range(len(samples)):
        exact, rounded = turn(index)
        output = run(index, exact)
        whole.append(divergence(output, run(index, exact | rounded)))
        for site in adapter.pairs if index in few else ():
            alone = {name: rounded[name] for name in input_names(site)}
            of_sites.setdefault(site, []).append(divergence(output, run(index, exact | alone)))
    sites = _site_scores(of_sites)
    by_input = _scores(((sample.task, sample.item) for sample in samples), whole)
    by_step = _scores(((sample.task, sample.step, sample.timestep) for sample in samples), whole)
    return AdapterSensitivity(
        adapter=adapter.name,
        score=score(whole),
        inputs=tuple(InputScore(task=task, item=item, score=own) for (task, item), own in by_input.items()),
        steps=tuple(
            StepScore(task=task, step=step, timestep=timestep, score=own) for (task, step, timestep), own in by_step.items()
        ),
        sites=sites,
        site_agreement=_agreement([site.score for site in sites]),
    )


def choose_anchor(scores: Sequence[AdapterSensitivity]) -> AnchorChoice:
    """Return an AnchorChoice: the adapter whose rounding adds the most noise (mean dB over inputs), or None if another adapter's
    noise is not significantly lower. Noise is compared input by input, so that variation between inputs and tasks cancels out.
    """
    noise_db = {scored.adapter: [own.score.noise_db for own in scored.inputs] for scored in scores}
    first, *rest = sorted(noise_db, key=lambda adapter: sum(noise_db[adapter]) / len(noise_db[adapter]), reverse=True)
    if not rest:
        return AnchorChoice(anchor=first, reason="the recipe has only this adapter")
    differences = {
        other: compare_paired([a - b for a, b in zip(noise_db[first], noise_db[other], strict=True)]) for other in rest
    }
    comparisons = tuple(AdapterComparison(first=first, second=other, difference_db=own) for other, own in differences.items())
    alike = [comparison for comparison in comparisons if not comparison.difference_db.is_told_apart]
    if alike:
        return AnchorChoice(anchor=None, reason=f"equally sensitive: {alike[0].described}", comparisons=comparisons)
    return AnchorChoice(anchor=first, reason=f"most sensitive: {comparisons[0].described}", comparisons=comparisons)


def _one_for_each_input(samples: Sequence[UnetSample], wanted: int) -> list[int]:
    """Return indices of samples for scoring layers: one sample from each of up to `wanted` inputs, at varying sampler steps."""
    by_input: dict[tuple[str, str], list[int]] = {}
    for index, sample in enumerate(samples):
        by_input.setdefault((sample.task, sample.item), []).append(index)
    own = list(by_input.values())
    return [own[i][turn % len(own[i])] for turn, i in enumerate(spread(len(own), wanted))] if wanted else []


def _site_scores(of_sites: Mapping[str, Sequence[Divergence]]) -> tuple[SiteScore, ...]:
    """Return a SiteScore per layer, noisiest first. `of_sites` maps each layer to its divergences, in the same sample order."""
    ordered = sorted(of_sites, key=lambda site: score(of_sites[site]).noise_db, reverse=True)

    def noise_db(site: str) -> list[float]:
        return [score([one]).noise_db for one in of_sites[site]]

    def below_worst(site: str) -> PairedComparison:
        return compare_paired([worst - own for worst, own in zip(noise_db(ordered[0]), noise_db(site), strict=True)])

    return tuple(
        SiteScore(site=site, score=score(of_sites[site]), below_worst=below_worst(site) if site != ordered[0] else None)
        for site in ordered
    )


def _scores(keys: Iterable[KeyT], divergences: Sequence[Divergence]) -> dict[KeyT, DivergenceScore]:
    groups: dict[KeyT, list[Divergence]] = {}
    for key, one in zip(keys, divergences, strict=True):
        groups.setdefault(key, []).append(one)
    return {key: score(own) for key, own in groups.items()}


def _agreement(scores: Sequence[DivergenceScore]) -> Agreement:
    js = [s.js for s in scores]
    return Agreement(mse=kendall_tau(js, [s.mse for s in scores]), sqnr=kendall_tau(js, [s.noise_db for s in scores]))


def analyse(recipe: Recipe, *, lora: Literal["int16", "int8"] | None = None, notify: Notify = ignore_step) -> Sensitivity:
    """Measure how much U-Net outputs change when a recipe's adapters are rounded to the type `lora` (None: the recipe's type).
    Return a Sensitivity. Raise UserError if the recipe has no adapters, or if a file is missing or does not fit.
    """
    if not recipe.adapters:
        raise UserError(f"recipe '{recipe.name}' has no adapters; sensitivity is measured for adapters")
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(recipe, BuildSteps(notify), Path(scratch))
        notify("scores")
        return sensitivity(prepared, dtype=lora or recipe.precision.lora)
