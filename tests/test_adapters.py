"""PEFT adapters: read, or refused by name. The other formats stand in test_adapter_formats."""

import json
import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import UNet2DConditionModel  # noqa: E402
from peft import PeftModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.sentences import raising  # noqa: E402
from support.tiny_model import write_adapter  # noqa: E402

from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, graph_tensors, merge, shared_ranks  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.families.sd1 import SD1  # noqa: E402
from quadbench.quad.model.float_graphs import with_plain_attention  # noqa: E402
from quadbench.quad.model.foundation import load_foundation  # noqa: E402
from quadbench.quad.model.lora import UnetGraph  # noqa: E402


@pytest.fixture
def folder(tiny_recipe: Path, tmp_path: Path) -> Path:
    """Copy an adapter, to be spoilt."""
    return Path(shutil.copytree(tiny_recipe.parent / "adapters/first", tmp_path / "adapter"))


def _load(name: str, folder: Path, unet: UNet2DConditionModel) -> Adapter:
    return load_adapter(name, folder, sites_of_unet(unet))


def _edit_config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _edit_tensors(folder: Path, **changes: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **changes}, path)


def _inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return tuple(torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1,), (1, 16, 16)))


def _graph_eps(unet: UNet2DConditionModel, adapter: object, ranks: dict[str, int]) -> torch.Tensor:
    sample, timestep, text = _inputs()
    graph = UnetGraph(with_plain_attention(unet), SD1.conditions, ranks)
    tensors = graph_tensors(adapter, graph.lora_shapes)
    with torch.no_grad():
        return graph(sample, [unet.time_proj(timestep), text], [tensors[name] for name in graph.lora_names])


@pytest.mark.parametrize("name", ["first", "second"])
def test_lora_as_input_gives_what_peft_gives(tiny_recipe: Path, unet: UNet2DConditionModel, name: str) -> None:
    folders = {n: tiny_recipe.parent / "adapters" / n for n in ("first", "second")}
    adapters = {n: _load(n, f, unet) for n, f in folders.items()}
    sample, timestep, text = _inputs()
    plain = load_foundation(tiny_recipe.parent / "model").unet
    peft_unet = PeftModel.from_pretrained(plain, str(folders[name])).get_base_model()
    with torch.no_grad():
        expected = peft_unet(sample, timestep, text).sample
    eps = _graph_eps(unet, adapters[name], shared_ranks(adapters.values()))
    torch.testing.assert_close(eps, expected, atol=1e-5, rtol=1e-4)


def test_no_adapter_gives_the_foundation_model(tiny_recipe: Path, unet: UNet2DConditionModel) -> None:
    adapter = _load("first", tiny_recipe.parent / "adapters/first", unet)
    sample, timestep, text = _inputs()
    with torch.no_grad():
        expected = unet(sample, timestep, text).sample
    torch.testing.assert_close(_graph_eps(unet, None, shared_ranks([adapter])), expected, atol=1e-5, rtol=1e-4)


def test_merging_gives_what_lora_as_input_gives(tiny_recipe: Path, unet: UNet2DConditionModel) -> None:
    adapter = _load("second", tiny_recipe.parent / "adapters/second", unet)
    merged = load_foundation(tiny_recipe.parent / "model").unet
    merge(adapter, merged)
    sample, timestep, text = _inputs()
    with torch.no_grad():
        expected = merged(sample, timestep, text).sample
    torch.testing.assert_close(_graph_eps(unet, adapter, shared_ranks([adapter])), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{"use_rslora": True}, {"alpha_pattern": {"attn1.to_q": 32}}, {"rank_pattern": {"conv1": 2}}])
def test_scales_and_ranks_of_peft_are_followed(unet: UNet2DConditionModel, tmp_path: Path, options: dict[str, object]) -> None:
    write_adapter(unet, tmp_path, r=4, lora_alpha=8, target_modules=["to_q", "conv1"], **options)
    adapter = _load("patterned", tmp_path, unet)
    sample, timestep, text = _inputs()
    with torch.no_grad():
        expected = (
            PeftModel.from_pretrained(with_plain_attention(unet), str(tmp_path)).get_base_model()(sample, timestep, text).sample
        )
    torch.testing.assert_close(_graph_eps(unet, adapter, shared_ranks([adapter])), expected, atol=1e-5, rtol=1e-4)


def test_a_missing_file_is_named(unet: UNet2DConditionModel, folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "optimizer.pt").touch()
    with raising(AdapterError, "adapter_model.safetensors") as refusal:
        _load("spoilt", folder, unet)
    assert "optimizer.pt" not in str(refusal.value)


def test_a_renamed_tensor_file_is_not_taken_for_the_one_beside_it(unet: UNet2DConditionModel, folder: Path) -> None:
    other = Path(shutil.copyfile(folder / "adapter_model.safetensors", folder / "other.safetensors"))
    with raising(AdapterError, "adapter_model.safetensors"):
        _load("spoilt", other, unet)


def test_a_pickle_is_not_opened(unet: UNet2DConditionModel, folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with raising(AdapterError):
        _load("spoilt", folder, unet)


def test_a_cut_file_is_refused(unet: UNet2DConditionModel, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with raising(AdapterError):
        _load("spoilt", folder, unet)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"use_qalora": True, "qalora_group_size": 16}, "use_qalora"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"layer_replication": [[0, 2], [1, 2]]}, "layer_replication"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": "LOHA", "alpha": 4}, "LOHA"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
    ],
)
def test_other_kinds_of_adapter_are_refused_by_name(
    unet: UNet2DConditionModel, folder: Path, change: dict[str, object], message: str
) -> None:
    _edit_config(folder, **change)
    with raising(AdapterError, message):
        _load("spoilt", folder, unet)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(unet: UNet2DConditionModel, folder: Path, value: float) -> None:
    key = "base_model.model.conv_in.lora_A.weight"
    _edit_tensors(folder, **{key: torch.full((4, 4, 3, 3), value)})
    with raising(AdapterError, "base_model.model.conv_in"):
        _load("spoilt", folder, unet)


def test_a_tensor_of_another_method_is_refused(unet: UNet2DConditionModel, folder: Path) -> None:
    _edit_tensors(folder, **{"base_model.model.conv_in.lora_magnitude_vector": torch.ones(4)})
    with raising(AdapterError, "DoRA", "lora_magnitude_vector", "use_dora=False"):
        _load("spoilt", folder, unet)


def test_an_adapter_that_fits_no_site_is_refused(unet: UNet2DConditionModel, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({key.replace("base_model.model.", "base_model.model.transformer."): t for key, t in load_file(path).items()}, path)
    with raising(AdapterError, 0):
        _load("stranger", folder, unet)


def test_shapes_that_do_not_fit_are_refused_with_both(unet: UNet2DConditionModel, folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("to_q.lora_A.weight"))
    save_file({**tensors, key: tensors[key][:, :-1].contiguous()}, path)
    with raising(AdapterError, 4):
        _load("misfit", folder, unet)
