"""Sources: a recipe's `foundation`, `adapters` and `inputs` -> the places that they are taken from."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from quadbench.spec import Name, Spec, SpecPath


class BuiltinFoundation(Spec):
    """A foundation model that comes with quadbench."""

    source: Literal["builtin"]
    """`builtin` takes the model that comes with quadbench."""
    name: Name = Field(examples=["emoji-ldm"])
    """The name of the built-in model: emoji-ldm."""


class DiffusersFoundation(Spec):
    """A Stable Diffusion 1.x pipeline in diffusers' folder layout."""

    source: Literal["diffusers"]
    """`diffusers` takes a pipeline that diffusers has saved."""
    path: SpecPath = Field(examples=["my-model"])
    """The folder that holds model_index.json; a relative path starts at the recipe's own folder."""


class CheckpointFoundation(Spec):
    """A Stable Diffusion 1.x model in one file, as its first authors laid it out."""

    source: Literal["checkpoint"]
    """`checkpoint` takes a model in one file."""
    path: SpecPath = Field(examples=["my-model.safetensors"])
    """The .safetensors file; a relative path starts at the recipe's own folder."""


class RandomFoundation(Spec):
    """A model of a published size with random weights: bytes, time and memory are the real model's, pictures are noise."""

    source: Literal["random"]
    """`random` draws the weights at random."""
    geometry: Literal["sd15", "bk-sdm-base"]
    """The model has the size of Stable Diffusion 1.5 or of BK-SDM-Base, which has one block less in each stage of the U-Net."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The weights are drawn with this seed, 0 or more. The default is 0."""


Foundation: TypeAlias = Annotated[
    BuiltinFoundation | DiffusersFoundation | CheckpointFoundation | RandomFoundation, Field(discriminator="source")
]


class BuiltinAdapter(Spec):
    """A LoRA that comes with quadbench."""

    source: Literal["builtin"]
    """`builtin` takes what comes with quadbench."""
    name: Name = Field(examples=["restyle"])
    """The name of the built-in LoRA: restyle, remove-object, sketch-to-image, sticker or portrait."""


class PeftAdapter(Spec):
    """A LoRA saved by PEFT."""

    source: Literal["peft"]
    """Takes a LoRA that PEFT has saved."""
    path: SpecPath = Field(examples=["my-lora"])
    """This folder holds adapter_config.json and adapter_model.safetensors; a relative path starts at the recipe's own folder."""


class DiffusersAdapter(Spec):
    """A LoRA saved by diffusers' save_lora_weights."""

    source: Literal["diffusers"]
    """Takes a LoRA that diffusers has saved."""
    path: SpecPath = Field(examples=["my-lora.safetensors"])
    """The .safetensors file, or the folder that save_lora_weights wrote; a relative path starts at the recipe's own folder."""
    unet_only: bool = False
    """True leaves out what the file has for the text encoder, which takes no LoRA; the build says what that comes to.
    The default is false: such a file is refused."""


class KohyaAdapter(Spec):
    """A LoRA saved by kohya's training scripts, or a LoCon saved by LyCORIS."""

    source: Literal["kohya"]
    """Takes a LoRA that kohya's scripts or LyCORIS have saved."""
    path: SpecPath = Field(examples=["my-lora.safetensors"])
    """The .safetensors file; a relative path starts at the recipe's own folder."""
    unet_only: bool = False
    """True leaves out what the file has for the text encoder, which takes no LoRA; the build says what that comes to.
    The default is false: such a file is refused."""


SiteKind: TypeAlias = Literal["attention", "feed-forward", "projection", "convolution"]


class RandomAdapter(Spec):
    """A LoRA of random weights: its bytes are those of a trained one of the same rank and sites."""

    source: Literal["random"]
    """`random` draws the weights at random."""
    rank: int = Field(ge=1, le=1024, examples=["16"])
    """The LoRA has this rank at every site, 1 to 1024."""
    sites: tuple[SiteKind, ...] = Field(default=("attention",), min_length=1)
    """The LoRA changes these kinds of modules in the U-Net's blocks, at least one. The default is attention alone."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The weights are drawn with this seed, 0 or more. The default is 0."""


Adapter: TypeAlias = Annotated[
    BuiltinAdapter | PeftAdapter | DiffusersAdapter | KohyaAdapter | RandomAdapter, Field(discriminator="source")
]


class BuiltinInputs(Spec):
    """Evaluation inputs that come with quadbench."""

    source: Literal["builtin"]
    """`builtin` takes what comes with quadbench."""
    name: Name = Field(examples=["restyle"])
    """The name of the built-in LoRA whose inputs these are: restyle, remove-object, sketch-to-image, sticker or portrait."""


class FolderInputs(Spec):
    """Evaluation inputs of your own; docs/recipe.md says what the folder holds."""

    source: Literal["folder"]
    """`folder` takes inputs of your own."""
    path: SpecPath = Field(examples=["my-inputs"])
    """The folder with inputs.json and the images that it names; a relative path starts at the recipe's own folder."""


Inputs: TypeAlias = Annotated[BuiltinInputs | FolderInputs, Field(discriminator="source")]
