"""Adapters of diffusers and kohya are read as their own loaders read them, and the reference loads them without our reader."""

import copy
import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from diffusers import StableDiffusionPipeline, UNet2DConditionModel  # noqa: E402
from diffusers.utils import convert_state_dict_to_diffusers  # noqa: E402
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from support.adapter_files import LDM_NAMES, Known, draw_pairs, kohya_name, kohya_tensors, load, write_kohya  # noqa: E402
from support.ldm_checkpoint import ldm_name  # noqa: E402
from support.sentences import raising  # noqa: E402
from support.tiny_model import RECIPE, write_adapter  # noqa: E402

from quadbench.errors import AdapterError  # noqa: E402
from quadbench.quad.adapters.adapter import Adapter, merge  # noqa: E402
from quadbench.quad.adapters.kohya import site_of_ldm  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, read_adapter, sites_of_graph, sites_of_unet  # noqa: E402
from quadbench.quad.candidate import name_after  # noqa: E402
from quadbench.quad.model.foundation import Foundation, random_module  # noqa: E402
from quadbench.quad.model_files import (  # noqa: E402
    DIFFUSERS_TENSORS,
    AdapterFormat,
    AdapterSource,
    adapter_digests,
    adapter_source,
    check_adapter,
)
from quadbench.quad.reference import with_adapters  # noqa: E402
from quadbench.recipe.recipe import load_recipe  # noqa: E402
from quadbench.recipe.tasks import DiffusersAdapter  # noqa: E402


def with_adapter(unet: UNet2DConditionModel, source: AdapterSource) -> UNet2DConditionModel:
    return with_adapters(unet, {"style": source}, {"style": 1.0})


def eps(unet: UNet2DConditionModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, generator=generator) for shape in ((1, 4, 8, 8), (1,), (1, 16, 16))]
    with torch.no_grad():
        return unet(*inputs).sample


def eps_of_loader(foundation: Foundation, path: Path, **options: object) -> torch.Tensor:
    """Run the U-Net with the file loaded by diffusers' own pipeline."""
    unet = copy.deepcopy(foundation.unet)
    pipeline = StableDiffusionPipeline(
        vae=foundation.vae,
        text_encoder=foundation.part("text_encoder"),
        tokenizer=foundation.tokenizers["tokenizer"],
        unet=unet,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name, local_files_only=True, **options)
    return eps(unet)


def eps_of_unet_loader(foundation: Foundation, path: Path) -> torch.Tensor:
    """The U-Net's own loader, which takes keys without the prefix `unet.`."""
    unet = copy.deepcopy(foundation.unet)
    unet.load_lora_adapter(load_file(path), prefix=None)
    return eps(unet)


def eps_merged(adapter: Adapter, unet: UNet2DConditionModel) -> torch.Tensor:
    merged = copy.deepcopy(unet)
    merge(adapter, merged)
    return eps(merged)


def assert_same(actual: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-4)


def trained(unet: UNet2DConditionModel, **options: object) -> tuple[UNet2DConditionModel, LoraConfig]:
    """Return a U-Net with a random LoRA in it, as diffusers' training scripts have it before they save."""
    config = LoraConfig(init_lora_weights=False, **options)
    torch.manual_seed(5)
    return inject_adapter_in_model(config, copy.deepcopy(unet)), config


def save_diffusers(folder: Path, layers: dict[str, torch.Tensor], config: LoraConfig | None = None) -> Path:
    metadata = json.loads(json.dumps(config.to_dict(), default=list)) if config else None
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
    return folder / "pytorch_lora_weights.safetensors"


PATTERNS = {
    "r": 4,
    "lora_alpha": 8,
    "target_modules": ["to_q", "to_out.0", "ff.net.0.proj", "conv1"],
    "rank_pattern": {"conv1": 2},
    "alpha_pattern": {"attn1.to_q": 32},
}


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_a_diffusers_file_with_its_configuration_is_read_as_its_loader_reads_it(
    foundation: Foundation, tmp_path: Path, options: dict[str, object]
) -> None:
    model, config = trained(foundation.unet, **PATTERNS, **options)
    path = save_diffusers(tmp_path, get_peft_model_state_dict(model), config)
    merged = eps_merged(load(path, foundation.unet), foundation.unet)
    assert_same(merged, eps(model))
    assert_same(merged, eps_of_loader(foundation, path))


def test_the_folder_that_diffusers_wrote_is_read_as_its_file_and_gives_the_adapter_its_name(
    foundation: Foundation, tmp_path: Path
) -> None:
    model, config = trained(foundation.unet, **PATTERNS)
    folder = tmp_path / "My_LoRA"
    file = save_diffusers(folder, get_peft_model_state_dict(model), config)
    assert [path.name for path in folder.iterdir()] == [file.name] == [DIFFUSERS_TENSORS]
    merged = eps_merged(load(folder, foundation.unet), foundation.unet)
    assert_same(merged, eps(model))
    assert adapter_digests(folder) == adapter_digests(file)
    assert (name_after(folder), name_after(file)) == ("my-lora", "my-lora")
    content = read_adapter("mine", folder)
    assert (content.format, content.path) == (AdapterFormat.DIFFUSERS, file)
    source = adapter_source(DiffusersAdapter(source="diffusers", path=folder))
    assert source
    check_adapter("mine", source)
    assert_same(eps(with_adapter(foundation.unet, source)), eps(model))


def test_a_diffusers_file_without_configuration_has_scale_1(foundation: Foundation, tmp_path: Path) -> None:
    model, _ = trained(foundation.unet, r=4, lora_alpha=8, target_modules=["to_q", "conv1"])
    path = save_diffusers(tmp_path, get_peft_model_state_dict(model))
    assert_same(eps_merged(load(path, foundation.unet), foundation.unet), eps_of_loader(foundation, path))


def test_keys_of_the_training_scripts_are_read(foundation: Foundation, tmp_path: Path) -> None:
    model, _ = trained(foundation.unet, r=4, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"])
    path = save_diffusers(tmp_path, convert_state_dict_to_diffusers(get_peft_model_state_dict(model)))
    assert all(".lora.down." in key or ".lora.up." in key for key in load_file(path))
    merged = eps_merged(load(path, foundation.unet), foundation.unet)
    assert_same(merged, eps(model))
    assert_same(merged, eps_of_loader(foundation, path))


@pytest.mark.parametrize("prefix", ["unet.", ""])  # the latter is what the U-Net's own save_attn_procs wrote
def test_keys_of_attention_processors_are_read(foundation: Foundation, tmp_path: Path, prefix: str) -> None:
    pairs = draw_pairs(foundation.unet, ("to_q", "to_out.0"), alphas=[None])
    path, tensors = tmp_path / "old.safetensors", {}
    for site, pair in pairs.items():
        attention, _, leaf = site.partition(".to_")
        key = f"{prefix}{attention}.processor.to_{leaf.removesuffix('.0')}_lora"
        tensors |= {f"{key}.down.weight": pair.down, f"{key}.up.weight": pair.up}
    save_file(tensors, path)
    adapter = load(path, foundation.unet)
    assert adapter.pairs.keys() == pairs.keys()
    loaded = eps_of_loader(foundation, path) if prefix else eps_of_unet_loader(foundation, path)
    assert_same(eps_merged(adapter, foundation.unet), loaded)
    source = AdapterSource(format=AdapterFormat.DIFFUSERS, path=path)
    assert_same(eps_merged(adapter, foundation.unet), eps(with_adapter(foundation.unet, source)))


def test_alphas_in_a_diffusers_file_are_followed(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path) -> None:
    tensors = {}
    for site, pair in known.items():
        tensors |= {f"unet.{site}.lora_A.weight": pair.down, f"unet.{site}.lora_B.weight": pair.up}
        if pair.alpha is not None:
            tensors[f"unet.{site}.alpha"] = torch.tensor(pair.alpha)
    save_file(tensors, tmp_path / "alphas.safetensors")
    assert_known(load(tmp_path / "alphas.safetensors", unet), known)


def assert_known(adapter: Adapter, known: dict[str, Known]) -> None:
    assert adapter.pairs.keys() == known.keys()
    for site, pair in adapter.pairs.items():
        torch.testing.assert_close(pair.up.flatten(1) @ pair.down.flatten(1), known[site].delta)


def test_a_kohya_file_gives_the_pairs_that_were_written(
    unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path
) -> None:
    adapter = load(write_kohya(tmp_path / "style.safetensors", known), unet)
    assert {pair.rank for pair in adapter.pairs.values()} == {2, 3, 4}
    assert_known(adapter, known)


def test_a_kohya_file_is_read_as_the_loader_of_diffusers_reads_it(foundation: Foundation, tmp_path: Path) -> None:
    path = write_kohya(tmp_path / "style.safetensors", draw_pairs(foundation.unet, alphas=[2.0]))
    assert_same(eps_merged(load(path, foundation.unet), foundation.unet), eps_of_loader(foundation, path))


def test_linear_pairs_may_be_1x1_kernels_and_1x1_convolutions_matrices(
    unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path
) -> None:
    tensors = kohya_tensors(known)
    for key, tensor in tensors.items():
        if tensor.shape[2:] == (1, 1) and "conv1" not in key and "downsamplers" not in key:
            tensors[key] = tensor[:, :, 0, 0].contiguous()
        elif tensor.ndim == 2:
            tensors[key] = tensor[:, :, None, None]
    save_file(tensors, tmp_path / "turned.safetensors")
    assert tensors[kohya_name("mid_block.attentions.0.proj_in") + ".lora_down.weight"].ndim == 2
    assert_known(load(tmp_path / "turned.safetensors", unet), known)


def test_half_precision_is_read_as_float32(unet: UNet2DConditionModel, known: dict[str, Known], tmp_path: Path) -> None:
    save_file({key: tensor.half() for key, tensor in kohya_tensors(known).items()}, tmp_path / "half.safetensors")
    adapter = load(tmp_path / "half.safetensors", unet)
    assert {pair.up.dtype for pair in adapter.pairs.values()} == {torch.float32}


@pytest.fixture(scope="module")
def ldm_file(known: dict[str, Known], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ldm") / "ldm.safetensors"
    names = {site: f"lora_unet_{name}" for site, name in LDM_NAMES.items()}
    save_file(kohya_tensors({site: known[site] for site in names}, names=names), path)
    return path


def test_names_of_the_original_code_find_their_sites(unet: UNet2DConditionModel, known: dict[str, Known], ldm_file: Path) -> None:
    assert_known(load(ldm_file, unet), {site: known[site] for site in LDM_NAMES})


def test_names_of_the_original_code_are_refused_where_there_is_a_graph_alone(unet: UNet2DConditionModel, ldm_file: Path) -> None:
    graph = sites_of_graph(
        {"lora.mid_block.attentions.0.proj_in.down": (4, 32), "lora.mid_block.attentions.0.proj_in.up": (32, 4)}
    )
    with raising(AdapterError, "input_blocks_1_1_"):
        load_adapter("style", ldm_file, graph)


UPSAMPLER = "up_blocks.0.upsamplers.0.conv"


def test_the_upsampler_of_a_block_without_attention_has_its_own_name_in_the_original_code(
    foundation: Foundation, tmp_path: Path
) -> None:
    """With one layer a block, blocks 0 and 1 make the first stage; its upsampler is part 1, as there is no attention."""
    pairs = draw_pairs(foundation.unet, (UPSAMPLER,), alphas=[3.0])
    path = tmp_path / "locon.safetensors"
    save_file(kohya_tensors(pairs, names={UPSAMPLER: "lora_unet_output_blocks_1_1_conv"}), path)
    adapter = load(path, foundation.unet)
    assert_known(adapter, pairs)
    reference = with_adapter(foundation.unet, AdapterSource(format=AdapterFormat.KOHYA, path=path))
    assert_same(eps(reference), eps_merged(adapter, foundation.unet))


def test_every_site_of_stable_diffusion_is_found_under_its_name_in_the_original_code() -> None:
    with torch.device("meta"):
        unet = random_module("sd15", "unet", seed=0)
    sites = sites_of_unet(unet).slots
    wrong = {}
    for site in sites:
        flat = ldm_name(f"{site}.weight", unet).removesuffix(".weight").replace(".", "_")
        if flat != site.replace(".", "_") and site_of_ldm(flat, unet.config.layers_per_block) != site:
            wrong[site] = flat
    assert len(sites) > 250
    assert wrong == {}


def test_an_upsampler_in_the_middle_of_a_stage_is_no_site(unet: UNet2DConditionModel, tmp_path: Path) -> None:
    pairs = draw_pairs(unet, (UPSAMPLER,), alphas=[None])
    save_file(kohya_tensors(pairs, names={UPSAMPLER: "lora_unet_output_blocks_0_1_conv"}), tmp_path / "odd.safetensors")
    with raising(AdapterError, "output_blocks_0_1_conv"):
        load(tmp_path / "odd.safetensors", unet)


def test_what_a_unet_saves_by_itself_is_read(foundation: Foundation, tmp_path: Path) -> None:
    """`unet.save_lora_adapter()` writes keys and configuration without a prefix."""
    unet = copy.deepcopy(foundation.unet)
    torch.manual_seed(5)
    unet.add_adapter(LoraConfig(init_lora_weights=False, **PATTERNS))
    unet.save_lora_adapter(tmp_path)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    assert not any(key.startswith("unet.") for key in load_file(path))
    merged = eps_merged(load(path, foundation.unet), foundation.unet)
    assert_same(merged, eps(unet))
    assert_same(merged, eps(with_adapter(foundation.unet, AdapterSource(format=AdapterFormat.DIFFUSERS, path=path))))


@pytest.mark.parametrize("format", [AdapterFormat.PEFT, AdapterFormat.DIFFUSERS])
def test_keys_with_peft_s_name_of_the_adapter_are_read(foundation: Foundation, tmp_path: Path, format: AdapterFormat) -> None:
    unet = foundation.unet
    write_adapter(unet, tmp_path, **PATTERNS)
    path = tmp_path / "adapter_model.safetensors"
    expected = load(tmp_path, unet)
    named = {key.replace(".weight", ".default.weight"): tensor for key, tensor in load_file(path).items()}
    if format is AdapterFormat.DIFFUSERS:
        named = {key.replace("base_model.model.", "unet."): tensor for key, tensor in named.items()}
        config = json.loads((tmp_path / "adapter_config.json").read_text())
        path = tmp_path / "style.safetensors"
        metadata = {"lora_adapter_metadata": json.dumps({f"unet.{key}": value for key, value in config.items()})}
        save_file(named, path, metadata=metadata)
    else:
        save_file(named, path)
        path = tmp_path
    adapter = load(path, unet)
    assert adapter.pairs.keys() == expected.pairs.keys()
    assert_same(eps_merged(adapter, unet), eps_merged(expected, unet))
    assert_same(eps(with_adapter(unet, AdapterSource(format=format, path=path))), eps_merged(expected, unet))


def write_in(format: AdapterFormat, unet: UNet2DConditionModel, known: dict[str, Known], folder: Path) -> Path:
    """Write an adapter in a format, and return the file, or the folder where the format is one."""
    match format:
        case AdapterFormat.PEFT:
            write_adapter(unet, folder, **PATTERNS)
            return folder
        case AdapterFormat.DIFFUSERS:
            model, config = trained(unet, **PATTERNS)
            return save_diffusers(folder, get_peft_model_state_dict(model), config)
        case AdapterFormat.KOHYA:
            write_kohya(folder / "style.safetensors", known)
            return folder / "style.safetensors"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16])
@pytest.mark.parametrize("format", list(AdapterFormat))
def test_narrow_floating_point_is_the_same_to_reader_and_reference(
    foundation: Foundation, known: dict[str, Known], tmp_path: Path, format: AdapterFormat, dtype: torch.dtype
) -> None:
    unet, path = foundation.unet, write_in(format, foundation.unet, known, tmp_path)
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    save_file({key: tensor.to(dtype) for key, tensor in load_file(file).items()}, file, metadata=metadata)
    reference = with_adapter(unet, AdapterSource(format=format, path=path))
    assert_same(eps(reference), eps_merged(load(path, unet), unet))
    assert not torch.allclose(eps(reference), eps(unet), atol=1e-3)


@pytest.mark.parametrize("format", list(AdapterFormat))
def test_the_reference_loads_every_format_without_our_reader(
    foundation: Foundation, known: dict[str, Known], tmp_path: Path, format: AdapterFormat
) -> None:
    unet, path = foundation.unet, write_in(format, foundation.unet, known, tmp_path)
    reference = with_adapter(unet, AdapterSource(format=format, path=path))
    assert_same(eps(reference), eps_merged(load(path, unet), unet))
    assert not torch.allclose(eps(reference), eps(unet), atol=1e-3)


def test_the_reference_follows_alphas_in_a_diffusers_file(
    foundation: Foundation, known: dict[str, Known], tmp_path: Path
) -> None:
    path, tensors = tmp_path / "alphas.safetensors", {}
    for site, pair in known.items():
        tensors |= {f"unet.{site}.lora_A.weight": pair.down, f"unet.{site}.lora_B.weight": pair.up}
        tensors[f"unet.{site}.alpha"] = torch.tensor(pair.alpha or 1.5)
    save_file(tensors, path)
    reference = with_adapter(foundation.unet, AdapterSource(format=AdapterFormat.DIFFUSERS, path=path))
    assert_same(eps(reference), eps_merged(load(path, foundation.unet), foundation.unet))


def test_the_configuration_s_scale_takes_the_place_of_alphas_in_the_reference_too(foundation: Foundation, tmp_path: Path) -> None:
    model, config = trained(foundation.unet, **PATTERNS)
    path = save_diffusers(tmp_path, get_peft_model_state_dict(model), config)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    alphas = {key.replace(".lora_A.weight", ".alpha"): torch.tensor(2.0) for key in tensors if ".lora_A." in key}
    save_file(tensors | alphas, path, metadata=metadata)
    reference = with_adapter(foundation.unet, AdapterSource(format=AdapterFormat.DIFFUSERS, path=path))
    assert_same(eps(reference), eps_merged(load(path, foundation.unet), foundation.unet))


def test_the_reference_takes_names_of_the_original_code(foundation: Foundation, ldm_file: Path) -> None:
    reference = with_adapter(foundation.unet, AdapterSource(format=AdapterFormat.KOHYA, path=ldm_file))
    assert_same(eps(reference), eps_merged(load(ldm_file, foundation.unet), foundation.unet))


def test_a_recipe_takes_files_of_all_formats(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        RECIPE.replace("{source: peft, path: adapters/first}", "{source: diffusers, path: a.safetensors}").replace(
            "{source: peft, path: adapters/second}", "{source: kohya, path: b.safetensors}"
        )
    )
    assert [adapter.source for adapter in load_recipe(path).adapters.values()] == ["diffusers", "kohya"]
