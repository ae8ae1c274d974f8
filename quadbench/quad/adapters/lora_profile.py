"""LoRA profile: quantizing adapters with encodings (scales) that they share, and measuring each adapter's quantization error."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
import torch

from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.divergence import decibels
from quadbench.quad.model.lora import GraphInputs, input_names
from quadbench.quad.quantize.encodings import Encoding, quantize, symmetric

Ranges = dict[str, float]  # graph input -> greatest magnitude
# Limits at every site. docs/adapters.md says why they are these.
MAX_CLIPPED = 0.01  # share of weights; for normal weights clipped in both factors this leaves 24 dB, near LEAST_SQNR_DB
MIN_EFFECTIVE_BITS = 6.0  # with fewer, the built-in adapters' worst sites fall below LEAST_SQNR_DB
MIN_SQNR_DB = 25.0  # of up*down: at all sites, this would be 5 to 7 dB worse than W8A16's own effect on eps
# Over all sites, gauge-aligned: below this, half of the update is noise, too much for distillation.
MIN_KEPT_DB = 3.0


def lora_ranges(adapters: Iterable[Adapter]) -> Ranges:
    """Return a dict from LoRA input name to the greatest magnitude of the input's weights over all given adapters."""
    ranges: Ranges = {}
    for adapter in adapters:
        for site, pair in adapter.pairs.items():
            for name, tensor in zip(input_names(site), (pair.down, pair.up), strict=True):
                ranges[name] = max(ranges.get(name, 0.0), float(tensor.abs().max()))
    return ranges


def shared_ranges(adapters: Sequence[Adapter], *, anchor: str | None) -> Ranges:
    """Return a dict from LoRA input name to max|weight|: of adapter `anchor` alone if it has the input, else of all adapters."""
    pooled = lora_ranges(adapters)
    return pooled if anchor is None else pooled | lora_ranges(a for a in adapters if a.name == anchor)


def align_gauge(adapter: Adapter, ranges: Ranges) -> Adapter:
    """Rescale each LoRA pair so that `down` and `up` take equal fractions of their ranges. The product up*down stays the same.

    For rank index k with a_k = max|down_k| and b_k = max|up_k|, g_k = sqrt((R_d / a_k) (b_k / R_u)) lets both reach the same
    fraction of their shared range; they fit without clipping if and only if a_k b_k <= R_d R_u.
    """
    pairs = {}
    for site, pair in adapter.pairs.items():
        range_down, range_up = (ranges[name] for name in input_names(site))
        a = pair.down.flatten(1).abs().amax(1)  # (r,)
        b = pair.up.flatten(1).abs().amax(0)  # (out, r) -> (r,)
        usable = (a > 0) & (b > 0) & (range_down > 0) & (range_up > 0)
        gauge = torch.where(usable, torch.sqrt((range_down / a) * (b / range_up)), torch.ones_like(a))
        down_shape, up_shape = (-1, *(1,) * (pair.down.ndim - 1)), (1, -1, *(1,) * (pair.up.ndim - 2))
        pairs[site] = LoraPair(down=pair.down * gauge.view(down_shape), up=pair.up / gauge.view(up_shape))
    return replace(adapter, pairs=pairs)


def lora_encodings(ranges: Ranges, *, headroom: float, dtype: str) -> dict[str, Encoding]:
    """Return a dict from LoRA input name to symmetric encoding. Each covers the input's greatest magnitude times `headroom`."""
    return {name: symmetric(magnitude * headroom, dtype) for name, magnitude in sorted(ranges.items())}


@dataclass(frozen=True, kw_only=True)
class LoraProfile:
    """A group of adapters that share one quantization encoding per LoRA input. The LoRA pairs may have been rescaled."""

    adapters: dict[str, Adapter]  # gauge-aligned if requested
    anchor: str | None  # the adapter whose ranges are used; None for the pooled ranges of all adapters
    encodings: dict[str, Encoding]


def lora_profile(adapters: Sequence[Adapter], *, anchor: str | None, gauge: bool, headroom: float, dtype: str) -> LoraProfile:
    """Compute adapters' shared LoRA encodings, as a LoraProfile. If `gauge`, first rescale pairs to balance `down` and `up`."""
    ranges = shared_ranges(adapters, anchor=anchor)
    if gauge:
        adapters = [align_gauge(adapter, ranges) for adapter in adapters]
        ranges = shared_ranges(adapters, anchor=anchor)
    encodings = lora_encodings(ranges, headroom=headroom, dtype=dtype)
    return LoraProfile(adapters={a.name: a for a in adapters}, anchor=anchor, encodings=encodings)


def adapter_integers(tensors: GraphInputs, encodings: Mapping[str, Encoding]) -> dict[str, np.ndarray]:
    """Quantize LoRA tensors with the encoding of each input. Return a dict from input name to integer array of equal shape."""
    return {name: quantize(tensor.numpy(), encodings[name]) for name, tensor in tensors.items()}


@dataclass(frozen=True, kw_only=True)
class SiteFit:
    """The quantization loss of an adapter at one layer. `clipped` counts weights outside their encoding's range. `effective_bits`
    is log2 of the integer levels of `up` or `down`, whichever uses fewer. `sqnr_db` is the SQNR of up*down, infinite if exact.
    """

    site: str
    clipped: int
    weights: int
    effective_bits: float
    sqnr_db: float


def site_fits(adapter: Adapter, encodings: Mapping[str, Encoding]) -> tuple[SiteFit, ...]:
    """Measure the quantization loss of an adapter under the given encodings. Return one SiteFit for each layer."""
    fits = []
    for site, pair in adapter.pairs.items():
        tensors, used = (pair.down, pair.up), [encodings[name] for name in input_names(site)]
        integers = [quantize(tensor.numpy(), encoding) for tensor, encoding in zip(tensors, used, strict=True)]
        down, up = (torch.from_numpy(q.astype(np.float32) * np.float32(e.scale)) for q, e in zip(integers, used, strict=True))
        exact = (pair.up.flatten(1) @ pair.down.flatten(1)).double()  # squares of small weights are zero in float32
        noise = (up.flatten(1) @ down.flatten(1)).double() - exact
        fit = SiteFit(
            site=site,
            clipped=sum(int((t.abs() > e.scale * (e.limit + 0.5)).sum()) for t, e in zip(tensors, used, strict=True)),
            weights=sum(tensor.numel() for tensor in tensors),
            effective_bits=min(math.log2(2 * int(np.abs(q).max()) + 1) for q in integers),
            sqnr_db=decibels(float(exact.square().sum()), float(noise.square().sum())),
        )
        fits.append(fit)
    return tuple(fits)


def clip_rate(fits: Sequence[SiteFit]) -> float:
    """Return the fraction (0 to 1) of an adapter's weights that lie outside the range of their encodings, over all layers."""
    return sum(fit.clipped for fit in fits) / sum(fit.weights for fit in fits)


class Acceptance(StrEnum):
    """The outcome of checking whether a new adapter can be quantized with the fixed LoRA encodings of a bundle."""

    ADMITTED = "admitted"
    ADMITTED_AFTER_GAUGE = "admitted after gauge"
    NEEDS_DISTILLATION = "needs distillation"
    REFUSED = "refused"

    @property
    def is_admitted(self) -> bool:
        """Return True for an outcome that lets a bundle take an adapter: `admitted`, or `admitted after gauge` (rescaling)."""
        return self in (Acceptance.ADMITTED, Acceptance.ADMITTED_AFTER_GAUGE)


@dataclass(frozen=True, kw_only=True)
class AdapterFit:
    """An adapter's quantization loss. `sites` lists the layers by increasing SQNR; `sqnr_db` is the SQNR of the whole adapter."""

    clip_rate: float
    effective_bits: float  # the fewest of any site
    sqnr_db: float
    sites: tuple[SiteFit, ...]

    @property
    def worst(self) -> SiteFit:
        return self.sites[0]

    @property
    def missing(self) -> tuple[SiteFit, ...]:
        return tuple(site for site in self.sites if _missed(site))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The decision whether a bundle can use an adapter, by quantization loss before (`plain`) or after (`gauged`) rescaling."""

    acceptance: Acceptance
    reason: str
    plain: AdapterFit
    gauged: AdapterFit


def judge(adapter: Adapter, encodings: Mapping[str, Encoding]) -> Judgement:
    """Return a Judgement whether a bundle can use an adapter. The bundle's `encodings` must cover all the adapter's layers."""
    plain, gauged = adapter_fit(adapter, encodings), adapter_fit(gauge(adapter, encodings), encodings)
    if not plain.missing:
        acceptance, reason = Acceptance.ADMITTED, "every site is within the limits"
    elif not gauged.missing:
        acceptance, reason = Acceptance.ADMITTED_AFTER_GAUGE, f"without the gauge, {_shown(plain)}"
    elif gauged.sqnr_db >= MIN_KEPT_DB:
        acceptance, reason = Acceptance.NEEDS_DISTILLATION, f"even gauge-aligned, {_shown(gauged)}"
    else:
        kept = f"SQNR over all sites {gauged.sqnr_db:.1f} dB, expected at least {MIN_KEPT_DB:g} dB"
        acceptance, reason = Acceptance.REFUSED, f"the shared ranges lose too much of the adapter: {kept}"
    return Judgement(acceptance=acceptance, reason=reason, plain=plain, gauged=gauged)


def gauge(adapter: Adapter, encodings: Mapping[str, Encoding]) -> Adapter:
    """Return an adapter with each pair rescaled so that `down` and `up` take equal fractions of the encodings' ranges."""
    return align_gauge(adapter, {name: encoding.scale * encoding.limit for name, encoding in encodings.items()})


def adapter_fit(adapter: Adapter, encodings: Mapping[str, Encoding]) -> AdapterFit:
    """Quantize an adapter with `encodings`, without rescaling it. Return the loss per layer and in total, as an AdapterFit."""
    sites = sorted(site_fits(adapter, encodings), key=lambda fit: fit.sqnr_db)
    signal = noise = 0.0  # energies over all sites, so that sites with small updates have little weight
    for fit in sites:
        energy = adapter.pairs[fit.site].energy
        signal += energy
        noise += energy * 10 ** (-fit.sqnr_db / 10)
    return AdapterFit(
        clip_rate=clip_rate(sites),
        effective_bits=min(fit.effective_bits for fit in sites),
        sqnr_db=decibels(signal, noise),
        sites=tuple(sites),
    )


def _missed(fit: SiteFit) -> str | None:
    """Return a message about the first limit that a layer's quantization loss violates, or None if it meets all limits.
    NaN violates a limit. A layer that quantization leaves unchanged meets all limits, even if it uses few integer levels.
    """
    if fit.sqnr_db == math.inf:
        return None
    if not fit.clipped <= MAX_CLIPPED * fit.weights:
        return f"{fit.clipped / fit.weights:.2%} of its weights clip, expected at most {MAX_CLIPPED:.1%}"
    if not fit.effective_bits >= MIN_EFFECTIVE_BITS:
        return f"{fit.effective_bits:.1f} effective bits, expected at least {MIN_EFFECTIVE_BITS:g}"
    if not fit.sqnr_db >= MIN_SQNR_DB:
        return f"SQNR {fit.sqnr_db:.1f} dB, expected at least {MIN_SQNR_DB:g} dB"
    return None


def _shown(fit: AdapterFit) -> str:
    first = fit.missing[0]
    return f"{len(fit.missing)} of {len(fit.sites)} sites violate a limit, such as {first.site}: {_missed(first)}"
