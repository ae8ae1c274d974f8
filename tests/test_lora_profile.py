"""Shared LoRA encodings and gauge alignment."""

import math

import pytest

torch = pytest.importorskip("torch")

from quadbench.quad.adapters.adapter import Adapter, LoraPair, graph_tensors  # noqa: E402
from quadbench.quad.adapters.lora_profile import (  # noqa: E402
    adapter_integers,
    align_gauge,
    lora_encodings,
    lora_ranges,
    shared_ranges,
    site_fits,
)
from quadbench.quad.model.lora import input_names  # noqa: E402

SITE = "site"


def _adapter(name: str, *, down: float = 1.0, up: float = 1.0, seed: int = 0, rank: int = 16, size: int = 320) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    pair = LoraPair(
        down=torch.randn(rank, size, generator=generator) * 0.02 * down,
        up=torch.randn(size, rank, generator=generator) * 0.02 * up,
    )
    return Adapter(name=name, pairs={SITE: pair})


def _sqnr_db(adapter: Adapter, adapters: list[Adapter], *, anchor: str | None, dtype: str) -> float:
    encodings = lora_encodings(shared_ranges(adapters, anchor=anchor), headroom=1.0, dtype=dtype)
    return next(fit.sqnr_db for fit in site_fits(adapter, encodings) if fit.site == SITE)


def test_gauge_changes_no_product() -> None:
    adapter = _adapter("a", down=1 / 8, up=8)
    gauged = align_gauge(adapter, lora_ranges([_adapter("b", seed=1)]))
    before, after = adapter.pairs[SITE], gauged.pairs[SITE]
    torch.testing.assert_close(after.up @ after.down, before.up @ before.down)


def test_gauge_keeps_the_product_of_a_convolution() -> None:
    generator = torch.Generator().manual_seed(0)
    pair = LoraPair(down=torch.randn(4, 8, 3, 3, generator=generator), up=torch.randn(16, 4, 1, 1, generator=generator) * 0.1)
    adapter = Adapter(name="conv", pairs={SITE: pair})
    gauged = align_gauge(adapter, dict(zip(input_names(SITE), (0.3, 2.0), strict=True))).pairs[SITE]
    product = lambda p: p.up.flatten(1) @ p.down.flatten(1)  # noqa: E731
    torch.testing.assert_close(product(gauged), product(pair))
    assert float(gauged.down.abs().max()) / 0.3 == pytest.approx(float(gauged.up.abs().max()) / 2.0, rel=0.5)


def test_gauge_fits_into_the_anchors_ranges_what_would_clip() -> None:
    anchor, other = _adapter("anchor"), _adapter("other", down=1 / 8, up=8, seed=1)
    ranges = shared_ranges([anchor, other], anchor="anchor")
    clipped = _sqnr_db(other, [anchor, other], anchor="anchor", dtype="int8")
    gauged = _sqnr_db(align_gauge(other, ranges), [anchor, other], anchor="anchor", dtype="int8")
    assert clipped < 10
    assert gauged > 25


@pytest.mark.parametrize(("dtype", "least_db"), [("int8", 12), ("int16", 60)])
def test_pooled_ranges_clip_nothing(dtype: str, least_db: float) -> None:
    adapters = [_adapter("a"), _adapter("b", down=1 / 8, up=8, seed=1)]
    assert all(_sqnr_db(a, adapters, anchor=None, dtype=dtype) > least_db for a in adapters)


def test_rank_indices_that_are_zero_stay_zero_under_the_gauge() -> None:
    adapter = _adapter("a")
    adapter.pairs[SITE].down[3] = 0
    gauged = align_gauge(adapter, lora_ranges([adapter]))
    assert torch.isfinite(gauged.pairs[SITE].up).all()
    assert (gauged.pairs[SITE].down[3] == 0).all()


def test_padding_with_zeros_is_exact_in_integers() -> None:
    small, large = _adapter("small", rank=4), _adapter("large", rank=16, seed=1)
    shapes = {
        name: tuple(t.shape) for name, t in zip(input_names(SITE), (large.pairs[SITE].down, large.pairs[SITE].up), strict=True)
    }
    integers = adapter_integers(
        graph_tensors(small, shapes), lora_encodings(lora_ranges([small, large]), headroom=1.0, dtype="int16")
    )
    assert integers["lora.site.down"].shape == (16, 320)
    assert not integers["lora.site.down"][4:].any()
    assert not integers["lora.site.up"][:, 4:].any()


def test_no_adapter_is_all_zeros() -> None:
    tensors = graph_tensors(None, {"lora.site.down": (4, 8), "lora.site.up": (8, 4)})
    assert not any(tensor.any() for tensor in tensors.values())


def test_headroom_widens_every_shared_range() -> None:
    ranges = lora_ranges([_adapter("a")])
    plain, wide = (lora_encodings(ranges, headroom=h, dtype="int16") for h in (1.0, 2.0))
    assert all(wide[name].scale == pytest.approx(2 * plain[name].scale) for name in plain)


def test_a_site_that_the_anchor_lacks_takes_its_range_from_the_others() -> None:
    anchor, other = _adapter("anchor"), _adapter("other")
    other = Adapter(name="other", pairs={**other.pairs, "elsewhere": other.pairs[SITE]})
    ranges = shared_ranges([anchor, other], anchor="anchor")
    assert set(ranges) == {*input_names(SITE), *input_names("elsewhere")}
    assert all(math.isfinite(r) and r > 0 for r in ranges.values())
