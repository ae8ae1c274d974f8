"""Judgement of an adapter under a frozen LoRA profile: accepted as it is, after the gauge, once distilled, or not at all."""

import pytest

torch = pytest.importorskip("torch")

from support.sentences import says  # noqa: E402

from quadbench.quad.adapters.adapter import Adapter, LoraPair  # noqa: E402
from quadbench.quad.adapters.lora_profile import (  # noqa: E402
    MIN_KEPT_DB,
    MIN_SQNR_DB,
    Acceptance,
    Judgement,
    adapter_fit,
    gauge,
    judge,
    lora_encodings,
    lora_ranges,
)
from quadbench.quad.quantize.encodings import Encoding  # noqa: E402

SITES = ("first", "second")


def adapter_of(*, down: float = 1.0, up: float = 1.0, seed: int = 1, sites: tuple[str, ...] = SITES) -> Adapter:
    generator = torch.Generator().manual_seed(seed)

    def pair() -> LoraPair:
        return LoraPair(
            down=torch.randn(8, 64, generator=generator) * 0.02 * down, up=torch.randn(64, 8, generator=generator) * 0.02 * up
        )

    return Adapter(name="new", pairs={site: pair() for site in sites})


def profile(dtype: str = "int16", headroom: float = 1.5) -> dict[str, Encoding]:
    """Return the encodings that an adapter of ordinary size defines."""
    return lora_encodings(lora_ranges([adapter_of(seed=0)]), headroom=headroom, dtype=dtype)


def judged(adapter: Adapter, *, dtype: str = "int16") -> Judgement:
    return judge(adapter, profile(dtype))


@pytest.mark.parametrize("dtype", ["int16", "int8"])
def test_an_adapter_like_the_profiles_own_is_admitted(dtype: str) -> None:
    judgement = judged(adapter_of(), dtype=dtype)
    assert (judgement.acceptance, judgement.plain.clip_rate) == (Acceptance.ADMITTED, 0)


def test_a_pair_out_of_balance_is_admitted_after_the_gauge() -> None:
    judgement = judged(adapter_of(down=1 / 8, up=8))
    assert judgement.acceptance is Acceptance.ADMITTED_AFTER_GAUGE
    assert judgement.plain.clip_rate > 0.1
    assert judgement.gauged.clip_rate == 0
    says(judgement.reason, 2)


def test_an_update_larger_than_the_profile_needs_distillation() -> None:
    judgement = judged(adapter_of(down=4, up=3))
    assert judgement.acceptance is Acceptance.NEEDS_DISTILLATION
    assert MIN_KEPT_DB < judgement.gauged.sqnr_db < MIN_SQNR_DB
    says(judgement.reason, "gauge-aligned", 2)


def test_an_update_far_beyond_the_profile_is_refused() -> None:
    judgement = judged(adapter_of(down=20, up=20))
    assert judgement.acceptance is Acceptance.REFUSED
    assert judgement.gauged.sqnr_db < MIN_KEPT_DB


def test_a_faint_adapter_that_uses_few_integers_is_not_admitted() -> None:
    judgement = judged(adapter_of(down=1 / 64, up=1 / 64), dtype="int8")
    assert not judgement.acceptance.is_admitted
    assert judgement.gauged.clip_rate == 0
    assert judgement.gauged.effective_bits < 6


def test_one_bad_site_is_enough_and_is_named() -> None:
    good, bad = adapter_of(), adapter_of(down=3, up=2, sites=("second",))
    judgement = judged(Adapter(name="new", pairs=good.pairs | bad.pairs))
    assert judgement.acceptance is Acceptance.NEEDS_DISTILLATION
    assert judgement.gauged.worst.site == "second"
    says(judgement.reason, 1, 2)


def test_a_site_that_changes_nothing_misses_no_limit() -> None:
    silent = LoraPair(down=torch.ones(8, 64) * 0.02, up=torch.zeros(64, 8))
    assert judged(Adapter(name="new", pairs=adapter_of().pairs | {"second": silent})).acceptance is Acceptance.ADMITTED


def test_single_clipped_weights_are_outliers_and_do_not_decide() -> None:
    adapter, encodings = adapter_of(), profile()
    adapter.pairs["first"].down[0, 0] = 1.2 * encodings["lora.first.down"].scale * encodings["lora.first.down"].limit
    judgement = judge(adapter, encodings)
    assert judgement.plain.sites[0].clipped == 1
    assert judgement.acceptance is Acceptance.ADMITTED


def test_figures_of_all_sites_weigh_each_by_its_energy() -> None:
    encodings = profile(headroom=1.0)
    loud, faint = adapter_of(sites=("first",)), adapter_of(down=1e-3, up=1e-3, sites=("second",))
    both = adapter_fit(gauge(Adapter(name="new", pairs=loud.pairs | faint.pairs), encodings), encodings)
    alone = adapter_fit(gauge(loud, encodings), encodings)
    assert both.sqnr_db == pytest.approx(alone.sqnr_db, abs=0.1)
    assert both.worst.site == "second"
