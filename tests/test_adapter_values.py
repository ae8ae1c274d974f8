"""Adapters whose numbers cannot be used: refused by name, each kind of problem once, however many tensors have it."""

import math
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import Known, draw_pairs, kohya_name, kohya_tensors, write_kohya  # noqa: E402
from support.sentences import raising, reads, says  # noqa: E402
from support.tiny_model import tiny_unet  # noqa: E402

from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, LoraPair  # noqa: E402
from quadbench.quad.adapters.inspection import inspect_adapter  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.adapters.lora_profile import AdapterFit, SiteFit, judge, lora_encodings, lora_ranges  # noqa: E402
from quadbench.quad.divergence import LOWEST_DB, decibels  # noqa: E402

UNET = tiny_unet()
KNOWN = draw_pairs(UNET)
SITE = "mid_block.attentions.0.proj_in"
DOWN = f"{kohya_name(SITE)}.lora_down.weight"


def with_down(path: Path, tensor: torch.Tensor) -> Path:
    """Write the known pairs with another `down` at one site."""
    save_file(kohya_tensors(KNOWN) | {DOWN: tensor}, path)
    return path


def load(path: Path) -> Adapter:
    return load_adapter("style", path, sites_of_unet(UNET))


@pytest.mark.parametrize(
    ("value", "holds"),
    [
        (math.nan, ""),
        (math.inf, ""),
        (-math.inf, ""),
        (3e38, 65504),
        (-3e38, 65504),
        (65600.0, 65504),
    ],
)
def test_one_number_that_no_weight_has_is_enough(tmp_path: Path, value: float, holds: object) -> None:
    tensor = KNOWN[SITE].down.clone()
    tensor[0, 0] = value
    with raising(AdapterError, "style", holds, DOWN):
        load(with_down(tmp_path / "odd.safetensors", tensor))


@pytest.mark.parametrize("value", [1e-44, 1e-38, -1e-31])
def test_a_tensor_of_nothing_but_the_smallest_numbers_is_refused(tmp_path: Path, value: float) -> None:
    with raising(AdapterError, "1e-30", DOWN):
        load(with_down(tmp_path / "odd.safetensors", torch.full_like(KNOWN[SITE].down, value)))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.complex64])
def test_tensors_that_are_no_floating_point_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.ones_like(KNOWN[SITE].down).to(dtype)
    kind = str(dtype).removeprefix("torch.")
    with raising(AdapterError, "style", kind, DOWN):
        load(with_down(tmp_path / "odd.safetensors", tensor))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_floating_point_of_any_width_is_read_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = KNOWN[SITE].down.to(dtype)
    pair = load(with_down(tmp_path / "narrow.safetensors", tensor)).pairs[SITE]
    assert torch.equal(pair.down, tensor.float())


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    with raising(AdapterError):
        load(with_down(tmp_path / "odd.safetensors", torch.full_like(KNOWN[SITE].down, 1e300, dtype=torch.float64)))


def test_a_scale_that_makes_weights_too_large_is_refused(tmp_path: Path) -> None:
    known = KNOWN | {SITE: Known(down=KNOWN[SITE].down, up=KNOWN[SITE].up * 1e4, alpha=6e4)}
    with raising(AdapterError, "style", 65504, "mid_bl"):
        load(write_kohya(tmp_path / "odd.safetensors", known))


@pytest.mark.parametrize("alpha", [4, 4.0])
def test_an_alpha_may_be_saved_as_a_whole_number(tmp_path: Path, alpha: float) -> None:
    save_file(kohya_tensors(KNOWN) | {f"{kohya_name(SITE)}.alpha": torch.tensor(alpha)}, tmp_path / "alpha.safetensors")
    pair = load(tmp_path / "alpha.safetensors").pairs[SITE]
    torch.testing.assert_close(pair.up, KNOWN[SITE].up * (4 / pair.rank))


def problems_of(tensors: dict[str, torch.Tensor], path: Path) -> list[str]:
    save_file(tensors, path)
    return [problem.message for problem in inspect_adapter(path).problems]


def test_an_alpha_that_is_no_number_is_told_once_for_all_sites(tmp_path: Path) -> None:
    alphas = {f"{kohya_name(site)}.alpha": torch.tensor(math.nan) for site in KNOWN}
    first = min(alphas)
    reads(problems_of(kohya_tensors(KNOWN) | alphas, tmp_path / "odd.safetensors"), first, len(KNOWN) - 1)


def test_a_method_is_told_once_though_every_site_has_an_alpha(tmp_path: Path) -> None:
    tensors = {}
    for site in KNOWN:
        parts = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        tensors |= {f"{kohya_name(site)}.{part}": torch.ones(2, 2) for part in parts}
        tensors[f"{kohya_name(site)}.alpha"] = torch.tensor(2.0)
    (problem,) = problems_of(tensors, tmp_path / "loha.safetensors")
    says(problem, "LoHa", 4 * len(KNOWN) - 1)


@pytest.mark.parametrize("absent", ["up", "down"])
def test_half_a_pair_at_every_site_is_one_problem(tmp_path: Path, absent: str) -> None:
    tensors = {key: tensor for key, tensor in kohya_tensors(KNOWN).items() if f"lora_{absent}" not in key}
    (problem,) = problems_of(tensors, tmp_path / "half.safetensors")
    says(problem, len(KNOWN) - 1)


@pytest.mark.parametrize("zero", ["lora_up", "lora_down"])
def test_an_adapter_that_changes_nothing_is_refused(tmp_path: Path, zero: str) -> None:
    tensors = {key: t * (zero not in key) for key, t in kohya_tensors(KNOWN).items()}
    reads(problems_of(tensors, tmp_path / "zeros.safetensors"), "up*down", len(KNOWN))
    with raising(AdapterError):
        load(tmp_path / "zeros.safetensors")


def test_an_adapter_whose_factors_meet_nowhere_changes_nothing(tmp_path: Path) -> None:
    half = {key: tensor.clone() for key, tensor in kohya_tensors(KNOWN).items()}
    for key, tensor in half.items():
        if "lora_down" in key:
            tensor[1:] = 0
        elif "lora_up" in key:
            tensor[:, 0] = 0
    (problem,) = problems_of(half, tmp_path / "apart.safetensors")
    reads(problem, "up*down", len(KNOWN))


def test_more_sites_than_any_unet_has_are_refused(tmp_path: Path) -> None:
    one = torch.ones(1, 1)
    tensors = {f"lora_unet_{i}.lora_{side}.weight": one.clone() for i in range(1025) for side in ("down", "up")}
    reads(problems_of(tensors, tmp_path / "many.safetensors"), 1025, 1024)


def test_names_longer_than_any_site_are_refused(tmp_path: Path) -> None:
    tensors = kohya_tensors(KNOWN) | {f"lora_unet_{'a' * 200}.lora_down.weight": torch.ones(1, 1)}
    (problem,) = problems_of(tensors, tmp_path / "long.safetensors")
    reads(problem, 128, "a" * 128)


@pytest.mark.parametrize("figures", [{"sqnr_db": math.nan}, {"effective_bits": math.nan}, {"clipped": math.nan}])
def test_a_figure_that_is_no_number_passes_no_limit(figures: dict[str, float]) -> None:
    fit = SiteFit(**{"site": "one", "clipped": 0, "weights": 10, "effective_bits": 12.0, "sqnr_db": 60.0} | figures)
    assert AdapterFit(clip_rate=0.0, effective_bits=12.0, sqnr_db=60.0, sites=(fit,)).missing == (fit,)


@pytest.mark.parametrize(
    ("signal", "noise", "expected"), [(0.0, 0.0, math.inf), (0.0, 1.0, LOWEST_DB), (math.nan, 1.0, LOWEST_DB)]
)
def test_a_signal_of_nothing_is_no_error(signal: float, noise: float, expected: float) -> None:
    assert decibels(signal, noise) == expected


def test_faint_weights_have_a_ratio_too() -> None:
    """Their squares are zero in float32, which would look as if nothing was lost."""
    faint = Adapter(name="new", pairs={"site": LoraPair(down=torch.full((2, 8), 1e-20), up=torch.full((8, 2), 1e-20))})
    loud = Adapter(name="old", pairs={"site": LoraPair(down=torch.ones(2, 8), up=torch.ones(8, 2))})
    encodings = lora_encodings(lora_ranges([loud]), headroom=1.0, dtype="int16")
    assert not judge(faint, encodings).acceptance.is_admitted
