"""Sensitivity: adapters + the U-Net inputs of their own trajectories -> a quantization sensitivity score each, and the anchor.

QSS(adapter) = E_x[D(f(x; w) || f(x; w~))] (QUAD, arXiv 2603.29535, eq. 8). Here f is the float U-Net with the adapter, w~ the
adapter rounded under encodings of its own while everything else stays float, and x what the sampler feeds the U-Net.
docs/quad.md says more.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from quadbench.quad.adapters import Adapter, graph_tensors
from quadbench.quad.adapters.lora_profile import lora_encodings, lora_ranges
from quadbench.quad.divergence import BINS, Divergence, DivergenceScore, bins_over, divergence, kendall_tau, score, spread
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import Prepared
from quadbench.quad.quantize.encodings import dequantize, quantize
from quadbench.quad.tasks.prepared import PreparedTask, Unet, Visit, visit
from quadbench.quad.tasks.runner import Feed, as_feed

log = logging.getLogger(__name__)
SITE_SAMPLES = 4  # of an adapter's samples, spread evenly, for the pass that rounds one site at a time
STANDARD_ERRORS = 2.0  # about 95 % of a normal distribution


@dataclass(frozen=True, kw_only=True)
class UnetSample:
    """One x: the U-Net's inputs but for LoRA, at a step of a task's trajectory."""

    task: str
    step: int
    timestep: float
    feed: Feed


@dataclass(frozen=True, kw_only=True)
class StepScore:
    """The score over the samples of one step of one task."""

    task: str
    step: int
    timestep: float
    score: DivergenceScore


@dataclass(frozen=True, kw_only=True)
class SiteScore:
    """The score with one site alone rounded."""

    site: str
    score: DivergenceScore


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Kendall's tau of the order by Jensen-Shannon with that by another measure; None if one of them ranks nothing."""

    mse: float | None
    sqnr: float | None


@dataclass(frozen=True, kw_only=True)
class AdapterSensitivity:
    """The scores of an adapter; `score.js` is its QSS. `sites` fall by MSE, which differs even where no histogram does."""

    adapter: str
    score: DivergenceScore
    js_standard_error: float | None  # None from a single sample
    steps: tuple[StepScore, ...]
    sites: tuple[SiteScore, ...]
    site_agreement: Agreement


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The chosen anchor; None if the adapters are equally sensitive and the unified ranges should be taken."""

    anchor: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """The scores of all adapters, in the recipe's order, and the anchor that follows from them."""

    lora: str
    bins: int
    adapters: tuple[AdapterSensitivity, ...]
    agreement: Agreement
    choice: Choice


def sensitivity(prepared: Prepared, *, dtype: str, site_samples: int = SITE_SAMPLES) -> Sensitivity:
    """Score every adapter on the trajectories of its own tasks, and choose the anchor.

    An adapter that no task uses is scored on all tasks, whose samplers are run again with it.
    """
    scores, unet, shapes = [], prepared.unet, prepared.shapes
    for adapter in prepared.adapters.values():
        samples = [sample for task, visited in _visited(prepared, adapter) for sample in samples_of(task, visited)]
        scores.append(adapter_sensitivity(adapter, samples, unet=unet, shapes=shapes, dtype=dtype, site_samples=site_samples))
        log.info("sensitivity: %s, QSS %.3g over %d samples", adapter.name, scores[-1].score.js, len(samples))
    agreement = _agreement([s.score for s in scores])
    return Sensitivity(lora=dtype, bins=BINS, adapters=tuple(scores), agreement=agreement, choice=choose_anchor(scores))


def samples_of(prepared: PreparedTask, visited: Visit) -> list[UnetSample]:
    """Return a visit's inputs with the step that each belongs to; guidance gives two for a step."""
    timesteps = prepared.table.timesteps
    runs = len(visited.feeds) // (len(prepared.items.calibration) * len(timesteps))
    steps = [index // runs % len(timesteps) for index in range(len(visited.feeds))]
    return [
        UnetSample(task=prepared.task.name, step=step, timestep=float(timesteps[step]), feed=feed)
        for step, feed in zip(steps, visited.feeds, strict=True)
    ]


def adapter_sensitivity(
    adapter: Adapter,
    samples: Sequence[UnetSample],
    *,
    unet: Unet,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: str,
    site_samples: int = SITE_SAMPLES,
) -> AdapterSensitivity:
    """Run the U-Net with the adapter as it is and as `dtype` rounds it, on every sample; then site by site on `site_samples`."""
    exact_lora = as_feed(graph_tensors(adapter, shapes))
    rounded_lora = exact_lora | _rounded(adapter, exact_lora, dtype)
    exact = [unet(sample.feed | exact_lora).numpy() for sample in samples]
    bins = bins_over(exact)

    def against(lora: Feed, chosen: Sequence[int]) -> list[Divergence]:
        return [divergence(exact[i], unet(samples[i].feed | lora).numpy(), bins) for i in chosen]

    whole = against(rounded_lora, range(len(samples)))
    few = spread(len(samples), site_samples)
    sites = [_site_score(site, exact_lora, rounded_lora, lambda lora: against(lora, few)) for site in adapter.pairs if few]
    return AdapterSensitivity(
        adapter=adapter.name,
        score=score(whole),
        js_standard_error=_standard_error([d.js for d in whole]),
        steps=_by_step(samples, whole),
        sites=tuple(sorted(sites, key=lambda site: site.score.mse, reverse=True)),
        site_agreement=_agreement([site.score for site in sites]),
    )


def choose_anchor(scores: Sequence[AdapterSensitivity]) -> Choice:
    """Choose the adapter with the highest mean Jensen-Shannon divergence.

    The adapters count as equally sensitive if the highest mean is above the second by no more than twice the standard error
    of the difference, sqrt(se_1^2 + se_2^2). Each x is one sample; how D varies over a trajectory's steps is part of the error,
    which makes this careful. A single sample has no standard error, and so decides nothing.
    """
    first, *rest = sorted(scores, key=lambda s: s.score.js, reverse=True)
    if not rest:
        return Choice(anchor=first.adapter, reason="it is the only adapter")
    second, difference = rest[0], first.score.js - rest[0].score.js
    names = f"'{first.adapter}' and '{second.adapter}'"
    if first.js_standard_error is None or second.js_standard_error is None:
        return Choice(anchor=None, reason=f"{names} cannot be told apart: one of them has a single sample")
    error = STANDARD_ERRORS * math.hypot(first.js_standard_error, second.js_standard_error)
    compared = f"QSS of {names} differ by {difference:.3g}, twice the standard error of that is {error:.3g}"
    if difference <= error:
        return Choice(anchor=None, reason=f"equally sensitive: {compared}")
    return Choice(anchor=first.adapter, reason=f"most sensitive: {compared}")


def _visited(prepared: Prepared, adapter: Adapter) -> list[tuple[PreparedTask, Visit]]:
    """Return the adapter's own tasks, as they were visited; if it has none, all tasks, visited with it."""
    own = [(task, prepared.visits[task.task.name]) for task in prepared.tasks if adapter.name in task.task.adapter]
    lora = prepared.feed(adapter)
    return own or [(task, visit(task, prepared.encoders, prepared.unet, lora)) for task in prepared.tasks]


def _rounded(adapter: Adapter, exact: Feed, dtype: str) -> Feed:
    """Return the adapter's LoRA inputs, each rounded under the range of this adapter alone and back in float."""
    encodings = lora_encodings(lora_ranges([adapter]), headroom=1.0, dtype=dtype)
    return {name: dequantize(quantize(exact[name], e), e) for name, e in encodings.items()}


def _site_score(site: str, exact: Feed, rounded: Feed, against: Callable[[Feed], list[Divergence]]) -> SiteScore:
    return SiteScore(site=site, score=score(against(exact | {name: rounded[name] for name in input_names(site)})))


def _by_step(samples: Sequence[UnetSample], divergences: Sequence[Divergence]) -> tuple[StepScore, ...]:
    steps: dict[tuple[str, int, float], list[Divergence]] = {}
    for sample, one in zip(samples, divergences, strict=True):
        steps.setdefault((sample.task, sample.step, sample.timestep), []).append(one)
    return tuple(
        StepScore(task=task, step=step, timestep=timestep, score=score(own)) for (task, step, timestep), own in steps.items()
    )


def _standard_error(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def _agreement(scores: Sequence[DivergenceScore]) -> Agreement:
    js = [s.js for s in scores]
    noise_db = [-math.inf if s.sqnr_db is None else -s.sqnr_db for s in scores]  # the higher, the worse, as the others
    return Agreement(mse=kendall_tau(js, [s.mse for s in scores]), sqnr=kendall_tau(js, noise_db))
