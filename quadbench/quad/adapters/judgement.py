"""Judgement: an adapter and a frozen LoRA profile -> its acceptance: as it is, after the gauge, once distilled, or not at all."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from quadbench.quad.adapters import Adapter
from quadbench.quad.adapters.lora_profile import SiteFit, aligned, clip_rate, site_fits
from quadbench.quad.divergence import decibels
from quadbench.quad.quantize.encodings import Encoding

# Limits at every site. docs/adapters.md says why they are these.
MOST_CLIPPED = 0.01  # of its weights; normal ones clipped so in both factors leave 24 dB, about what the last limit asks
LEAST_EFFECTIVE_BITS = 6.0  # with fewer, the built-in adapters' worst sites fall below the next limit
LEAST_SQNR_DB = 25.0  # of up*down: 5 to 7 dB below what W8A16 itself does to eps, if all sites were so
# Of all sites together, gauge-aligned: below it half of the update is noise, and no start for distillation.
LEAST_KEPT_DB = 3.0


class Acceptance(StrEnum):
    """The outcome for an adapter under a LoRA profile that stays as it is."""

    ADMITTED = "admitted"
    ADMITTED_AFTER_GAUGE = "admitted after gauge"
    NEEDS_DISTILLATION = "needs distillation"
    REFUSED = "refused"

    @property
    def is_admitted(self) -> bool:
        """Say whether the adapter may be added to the bundle."""
        return self in (Acceptance.ADMITTED, Acceptance.ADMITTED_AFTER_GAUGE)


@dataclass(frozen=True, kw_only=True)
class AdapterFit:
    """An adapter's losses under a LoRA profile. `sites` from the lowest SQNR on; `sqnr_db` of all sites' up*down together."""

    clip_rate: float
    effective_bits: float  # at the site with the fewest
    sqnr_db: float
    sites: tuple[SiteFit, ...]

    @property
    def worst(self) -> SiteFit:
        """Return the site with the lowest SQNR."""
        return self.sites[0]

    @property
    def missing(self) -> tuple[SiteFit, ...]:
        """Return the sites that miss a limit."""
        return tuple(site for site in self.sites if _missed(site))


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An acceptance and what it rests on: the adapter as it came and gauge-aligned."""

    acceptance: Acceptance
    reason: str
    plain: AdapterFit
    gauged: AdapterFit


def judge(adapter: Adapter, encodings: Mapping[str, Encoding]) -> Judgement:
    """Judge an adapter under the LoRA profile's encodings, which already have places for all of its sites."""
    plain, gauged = adapter_fit(adapter, encodings), adapter_fit(gauge(adapter, encodings), encodings)
    if not plain.missing:
        acceptance, reason = Acceptance.ADMITTED, "every site is within the limits as it is"
    elif not gauged.missing:
        acceptance, reason = Acceptance.ADMITTED_AFTER_GAUGE, f"without the gauge {_shown(plain)}"
    elif gauged.sqnr_db >= LEAST_KEPT_DB:
        acceptance, reason = Acceptance.NEEDS_DISTILLATION, f"even gauge-aligned {_shown(gauged)}"
    else:
        kept = f"SQNR over all sites {gauged.sqnr_db:.1f} dB, at least {LEAST_KEPT_DB:g} dB"
        acceptance, reason = Acceptance.REFUSED, f"the profile's ranges keep too little of it to start from: {kept} expected"
    return Judgement(acceptance=acceptance, reason=reason, plain=plain, gauged=gauged)


def gauge(adapter: Adapter, encodings: Mapping[str, Encoding]) -> Adapter:
    """Return the adapter, gauge-aligned to the ranges of the encodings."""
    return aligned(adapter, {name: encoding.scale * encoding.limit for name, encoding in encodings.items()})


def adapter_fit(adapter: Adapter, encodings: Mapping[str, Encoding]) -> AdapterFit:
    """Measure what the encodings cost the adapter as it is."""
    sites = sorted(site_fits(adapter, encodings), key=lambda fit: fit.sqnr_db)
    return AdapterFit(
        clip_rate=clip_rate(sites),
        effective_bits=min(fit.effective_bits for fit in sites),
        sqnr_db=_together_db(adapter, sites),
        sites=tuple(sites),
    )


def _together_db(adapter: Adapter, sites: Sequence[SiteFit]) -> float:
    """Return the SQNR from the energies of signal and noise over all sites, so that a site that changes little counts little."""
    signal = noise = 0.0
    for fit in sites:
        energy = adapter.pairs[fit.site].energy
        signal += energy
        noise += energy * 10 ** (-fit.sqnr_db / 10)
    return decibels(signal, noise)


def _missed(fit: SiteFit) -> str | None:
    """Say which limit the site misses first; None if it misses none, and also where nothing is lost, as at a site of zeros.

    A figure that is no number misses its limit.
    """
    if fit.sqnr_db == math.inf:
        return None
    if not fit.clipped <= MOST_CLIPPED * fit.weights:
        return f"{fit.clipped / fit.weights:.2%} of its weights clip, at most {MOST_CLIPPED:.1%}"
    if not fit.effective_bits >= LEAST_EFFECTIVE_BITS:
        return f"{fit.effective_bits:.1f} effective bits, at least {LEAST_EFFECTIVE_BITS:g}"
    if not fit.sqnr_db >= LEAST_SQNR_DB:
        return f"SQNR {fit.sqnr_db:.1f} dB, at least {LEAST_SQNR_DB:g} dB"
    return None


def _shown(fit: AdapterFit) -> str:
    first = fit.missing[0]
    return f"{len(fit.missing)} of {len(fit.sites)} sites miss a limit, as {first.site}: {_missed(first)} expected"
