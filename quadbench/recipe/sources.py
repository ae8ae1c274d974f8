"""Sources: where a recipe takes its foundation model, its adapters and its inputs from."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from quadbench.spec import Name, Spec, SpecPath


class BuiltinFoundation(Spec):
    """A foundation model that comes with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Its name in the built-in collection."""


class DiffusersFoundation(Spec):
    """A Stable Diffusion 1.x pipeline in diffusers' folder layout."""

    source: Literal["diffusers"]
    path: SpecPath
    """The folder with model_index.json; relative to this file."""


class CheckpointFoundation(Spec):
    """A Stable Diffusion 1.x model in one file, as its first authors laid it out."""

    source: Literal["checkpoint"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


class RandomFoundation(Spec):
    """A model of a published size with random weights: bytes, time and memory are the real model's, pictures are noise."""

    source: Literal["random"]
    geometry: Literal["sd15", "bk-sdm-base"]
    """Stable Diffusion 1.5, or BK-SDM-Base, which has one block less in each stage of the U-Net."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights."""


Foundation: TypeAlias = Annotated[
    BuiltinFoundation | DiffusersFoundation | CheckpointFoundation | RandomFoundation, Field(discriminator="source")
]


class BuiltinAdapter(Spec):
    """A LoRA that comes with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Its name in the built-in collection."""


class PeftAdapter(Spec):
    """A LoRA saved by PEFT."""

    source: Literal["peft"]
    path: SpecPath
    """The folder with adapter_config.json and adapter_model.safetensors; relative to this file."""


class DiffusersAdapter(Spec):
    """A LoRA saved by diffusers' save_lora_weights."""

    source: Literal["diffusers"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


class KohyaAdapter(Spec):
    """A LoRA saved by kohya's training scripts, or a LoCon saved by LyCORIS."""

    source: Literal["kohya"]
    path: SpecPath
    """The .safetensors file; relative to this file."""


SiteKind: TypeAlias = Literal["attention", "feed-forward", "projection", "convolution"]


class RandomAdapter(Spec):
    """A LoRA of random weights: its bytes are those of a trained one of the same rank and sites."""

    source: Literal["random"]
    rank: int = Field(ge=1, le=1024)
    """At every site."""
    sites: tuple[SiteKind, ...] = Field(default=("attention",), min_length=1)
    """Kinds of modules in the U-Net's blocks that it changes."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the weights."""


Adapter: TypeAlias = Annotated[
    BuiltinAdapter | PeftAdapter | DiffusersAdapter | KohyaAdapter | RandomAdapter, Field(discriminator="source")
]


class BuiltinInputs(Spec):
    """Evaluation inputs that come with quadbench."""

    source: Literal["builtin"]
    name: Name
    """Their name in the built-in collection."""


class FolderInputs(Spec):
    """Evaluation inputs of your own; docs/recipe.md says what the folder holds."""

    source: Literal["folder"]
    path: SpecPath
    """The folder; relative to this file."""


Inputs: TypeAlias = Annotated[BuiltinInputs | FolderInputs, Field(discriminator="source")]
