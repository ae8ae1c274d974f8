"""Model families: which family a folder, a single file or a LoRA is of; others are refused. Runs without torch."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

from quadbench import zoo
from quadbench.errors import AdapterError, UserError, quote
from quadbench.quad import model_files
from quadbench.quad.families.family import Family, FamilyName
from quadbench.quad.families.sd1 import SD1
from quadbench.quad.families.sd2 import SD2
from quadbench.quad.families.sdxl import SDXL
from quadbench.quad.model_files import DIFFUSERS_INDEX, PEFT_TENSORS, AdapterSource
from quadbench.quad.samplers.schedule import SchedulerConfig, sampler_fault, scheduler_config
from quadbench.recipe import CheckpointFoundation, Recipe, tasks
from quadbench.spec import is_file, read_json

SAVE_AGAIN = "save the model with diffusers again"
SCHEDULER_CONFIG = "scheduler_config.json"
_DENOISER = "model.diffusion_model."  # the U-Net's prefix in a single file
_MODELSPEC = {"epsilon": "epsilon", "v": "v_prediction", "v_prediction": "v_prediction"}  # of modelspec.prediction_type
FAMILIES = (SD1, SD2, SDXL)
_BY_PIPELINE = {
    "StableDiffusionXL": FamilyName.SDXL,  # of its pipelines that no family has
    "StableDiffusion3": FamilyName.SD3,
    "Flux": FamilyName.FLUX,
    "PixArt": FamilyName.PIXART,
    "Sana": FamilyName.SANA,
}
_BY_TEXT_WIDTH = {family.text_width: family.name for family in FAMILIES}
# Parts of tensor names by which files of other families are recognized, the surest first.
_BY_TENSOR = {
    "double_blocks": FamilyName.FLUX,
    "single_transformer_blocks": FamilyName.FLUX,
    "joint_blocks": FamilyName.SD3,
    "conditioner.embedders.": FamilyName.SDXL,
    "lora_te2_": FamilyName.SDXL,
    "text_encoder_2.": FamilyName.SDXL,
    "transformer.transformer_blocks": FamilyName.OTHER_TRANSFORMER,
    "lora_transformer_": FamilyName.OTHER_TRANSFORMER,
    "diffusion_model.layers.": FamilyName.OTHER_TRANSFORMER,
    "diffusion_model.blocks.": FamilyName.OTHER_TRANSFORMER,
}
_TEXT_KEY = re.compile(r"attn2[._].*to_[kv]")
_DOWN = re.compile(r"(?:lora_down|lora_A|lora[._]down)[.\w]*weight$")


@dataclass(frozen=True, kw_only=True)
class ModelConfigs:
    """A model's family and configurations. `text_width` is the number of channels of the text that its U-Net takes.
    `has_zeros_without_prompt` says whether zeros take the place of the text of an absent negative prompt.
    """

    family: Family
    text_width: int | None
    scheduler: SchedulerConfig
    has_zeros_without_prompt: bool = False


def taken() -> str:
    """Return the names of the families that quadbench takes, for messages."""
    return _any_of([family.name for family in FAMILIES])


def read_model(foundation: tasks.Foundation) -> ModelConfigs:
    """Return the family and configurations of a recipe's model. Raise UserError for other families, unreadable files, and
    configurations that quadbench cannot follow. No weights are read.
    """
    match foundation:
        case tasks.BuiltinFoundation(name=name):
            return read_folder(zoo.foundation_folder(name), {})
        case tasks.DiffusersFoundation(path=path):
            return read_folder(path, foundation.stated)
        case CheckpointFoundation(path=path):
            model_files.check_checkpoint(path)
            return _of_geometry(str(path), model_files.CHECKPOINT_GEOMETRY, checkpoint_stated(path) | foundation.stated)
        case tasks.RandomFoundation(geometry=geometry):
            return _of_geometry(f"random {geometry}", geometry, {})
        case _:
            assert_never(foundation)


def read_folder(folder: Path, stated: Mapping[str, Any]) -> ModelConfigs:
    """Return the family and configurations of a folder in diffusers' layout. The recipe's values `stated` replace those of its
    scheduler. Raise UserError unless it holds a family that quadbench takes. Libraries would download absent files.
    """
    index = _config(folder / DIFFUSERS_INDEX) if is_file(folder / DIFFUSERS_INDEX) else None
    families = _families_of(folder, index) if index is not None else FAMILIES  # a family is a better message than a missing part
    model_files.foundation_files(folder, families[0].folders)
    _check_classes(folder, index or {}, families[0])
    configs = {part: _config(folder / part / "config.json") for part in families[0].modules}
    unet = configs["unet"]
    family = next(family for family in families if family.holds(unet))
    _check_unet(folder, unet, family)
    _check_added(folder, configs, family)
    return ModelConfigs(
        family=family,
        text_width=_text_width(unet),
        scheduler=scheduler_config(folder, _config(folder / "scheduler" / SCHEDULER_CONFIG), stated),
        has_zeros_without_prompt=_has_zeros_without_prompt(folder, index or {}, family),
    )


def _of_geometry(name: str, geometry: str, stated: Mapping[str, Any]) -> ModelConfigs:
    """Return the family and configurations of a model with a stored geometry's configurations."""
    unet, scheduler = (model_files.part_folder(geometry, part) for part in ("unet", "scheduler"))
    config = scheduler_config(name, _config(scheduler / SCHEDULER_CONFIG), stated)
    return ModelConfigs(family=SD1, text_width=_text_width(_config(unet / "config.json")), scheduler=config)


def checkpoint_stated(path: Path) -> dict[str, Any]:
    """Return what a single file says of its scheduler, as keys of a scheduler configuration. Raise UserError for a file of
    another family than Stable Diffusion 1.x, or without a U-Net.
    """
    shapes, metadata = model_files.tensor_shapes(path)
    widths = {shape[1] for name, shape in shapes.items() if _TEXT_KEY.search(name) and len(shape) == 2}
    by_width = {family for width in widths if (family := _BY_TEXT_WIDTH.get(width))}
    by_name = {family for sign, family in _BY_TENSOR.items() if any(sign in name for name in shapes)}
    if others := (by_name or by_width) - {SD1.name}:
        raise UserError(
            f"foundation model '{path}' is a single file of {min(others)}; expected one of {SD1.name}",
            hint=f"save it as a folder with diffusers; of folders, {taken()} are taken",
        )
    if not any(name.startswith(_DENOISER) for name in shapes):
        first = quote(next(iter(shapes), ""))
        raise UserError(
            f"foundation model '{path}' has no U-Net: of its {len(shapes)} tensors, such as {first}, none begins with "
            f"'{_DENOISER}'; expected a single file of {SD1.name}",
            hint="list a LoRA under adapters; give a folder in diffusers' layout with source: diffusers",
        )
    said = metadata.get("modelspec.prediction_type")
    return {"prediction_type": _MODELSPEC.get(said, said)} if said else {}


def check_schedules(recipe: Recipe, scheduler: SchedulerConfig) -> Iterator[str]:
    """Yield a message for each sampler of a recipe, of its tasks and its devices, that the model's schedule does not allow."""
    for profile in (None, *recipe.devices):
        for task in recipe.for_device(profile).tasks:
            strength = 1.0 if isinstance(task, tasks.TextToImageTask) else task.strength
            if fault := sampler_fault(scheduler, task.sampler, strength):
                yield f"task '{task.name}'{f' on {profile}' if profile else ''}: {fault}"


def check_adapter_family(name: str, source: AdapterSource, model: ModelConfigs) -> None:
    """Raise AdapterError if a LoRA with a valid header is of another family than the model, by its tensors' names and shapes."""
    path = source.path / PEFT_TENSORS if source.format is model_files.AdapterFormat.PEFT else source.path
    shapes, _ = model_files.tensor_shapes(path)
    expected = f"the model is {model.family.name}, whose text has {model.text_width} channels"
    hint = f"use a LoRA that was trained for the model; families taken: {taken()}"
    for sign, family in _BY_TENSOR.items():
        if family is model.family.name:
            continue
        if other := next((tensor for tensor in shapes if sign in tensor), None):
            raise AdapterError(f"adapter '{name}': '{path}' is of {family} by its tensor {quote(other)}; {expected}", hint=hint)
    widths = {shape[1] for tensor, shape in shapes.items() if _TEXT_KEY.search(tensor) and _DOWN.search(tensor) and shape[1:]}
    if model.text_width and len(widths) == 1 and widths != {model.text_width}:
        (width,) = widths
        by_width = _BY_TEXT_WIDTH.get(width)
        whose = by_width if by_width and by_width is not model.family.name else "another model"
        raise AdapterError(f"adapter '{name}': '{path}' is of {whose}, with text of {width} channels; {expected}", hint=hint)


def _families_of(folder: Path, index: Mapping[str, Any]) -> list[Family]:
    """Return the families that have the pipeline of model_index.json, at least one. Raise UserError if there is none."""
    pipeline = index.get("_class_name")
    if families := [family for family in FAMILIES if pipeline in family.pipelines.values()]:
        return families
    expected = _any_of(list(dict.fromkeys(name for family in FAMILIES for name in family.pipelines.values())))
    other = next((name for start, name in _BY_PIPELINE.items() if str(pipeline).startswith(start)), None)
    held = f"holds {other}: it is a '{pipeline}'" if other else f"is a '{pipeline}'"
    raise UserError(
        f"foundation model '{folder}' {held} according to {DIFFUSERS_INDEX}; expected {expected}",
        hint=f"use a model of {taken()}",
    )


def _any_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _check_classes(folder: Path, index: Mapping[str, Any], family: Family) -> None:
    for part, expected in family.modules.items():
        entry = index.get(part)
        listed = entry[-1] if isinstance(entry, list) and entry else entry
        if listed != expected.name:
            raise UserError(f"foundation model '{folder}' has {part} '{listed}' in {DIFFUSERS_INDEX}; expected '{expected.name}'")


def _check_unet(folder: Path, unet: Mapping[str, Any], family: Family) -> None:
    """Raise UserError unless a U-Net's configuration takes only a latent and the family's conditions."""
    size = unet.get("sample_size")
    if not isinstance(size, int):
        raise UserError(f"the U-Net of '{folder}' has sample_size {quote(str(size))}; expected an integer", hint=SAVE_AGAIN)
    channels = unet.get("in_channels", 4), unet.get("out_channels", 4)
    if channels[0] != channels[1]:
        shape = "{} input and {} output channels".format(*(quote(str(count)) for count in channels))
        hint = "use a text-to-image U-Net; quadbench inpaints by blending latents"
        raise UserError(f"the U-Net of '{folder}' has {shape}; expected equal numbers", hint=hint)
    expected = {"addition_embed_type": family.added, "class_embed_type": None, "time_cond_proj_dim": None}
    if odd := [key for key in expected if (unet.get(key) or None) != expected[key]]:
        said = f"{odd[0]} {quote(str(unet.get(odd[0])))}"
        reason = f"the graph of {family.name} has no inputs for other conditions"
        raise UserError(f"the U-Net of '{folder}' has {said}; expected {expected[odd[0]]}, as {reason}")


def _check_added(folder: Path, configs: Mapping[str, Mapping[str, Any]], family: Family) -> None:
    """Raise UserError unless the U-Net's embedding of pooled text and numbers has as many channels as these have."""
    numbers = next((one.numbers for one in family.conditions if one.numbers), None)
    pooled = next((encoder.part for encoder in family.encoders if encoder.pooled), None)
    if numbers is None or pooled is None:
        return
    unet, text = configs["unet"], configs[pooled].get("projection_dim")
    each, total = unet.get("addition_time_embed_dim"), unet.get("projection_class_embeddings_input_dim")
    count = len(numbers(0, 0))
    if not (isinstance(each, int) and isinstance(text, int) and total == count * each + text):
        parts = quote(f"{text} of pooled text and {count} x {each} of the picture's size")
        raise UserError(
            f"the U-Net of '{folder}' has projection_class_embeddings_input_dim {quote(str(total))}; expected the sum of {parts}",
            hint=f"use a base model of {family.name}; a refiner is none",
        )


def _has_zeros_without_prompt(folder: Path, index: Mapping[str, Any], family: Family) -> bool:
    said = family.zeros_key is not None and index.get(family.zeros_key, True)  # diffusers' default
    if not isinstance(said, bool):
        entry = f"{family.zeros_key} {quote(str(said))} in {DIFFUSERS_INDEX}"
        raise UserError(f"foundation model '{folder}' has {entry}; expected true or false", hint=SAVE_AGAIN)
    return said


def _text_width(unet: Mapping[str, Any]) -> int | None:
    width = unet.get("cross_attention_dim")
    return width if isinstance(width, int) else None


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path, fault=UserError, hint=SAVE_AGAIN)
    if not isinstance(config, dict):
        raise UserError(f"'{path}' contains {type(config).__name__}; expected keys and values")
    return config
