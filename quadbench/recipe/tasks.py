"""Tasks: what a recipe has done with its adapters, and by which sampler."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationInfo, field_validator

from quadbench.recipe.sources import Inputs
from quadbench.spec import Name, Problem, Spec, refuse


class _Sampler(Spec):
    steps: int = Field(ge=1, le=100)
    """Sampler steps; each runs the U-Net once, twice where guidance is above 1."""


class OlssSampler(_Sampler):
    """Optimal linear subspace search: few steps fitted to a long DDIM trajectory of this task."""

    scheme: Literal["olss"]


class LcmSampler(_Sampler):
    """Latent consistency: for adapters trained for it, in few steps and mostly without guidance."""

    scheme: Literal["lcm"]


class EdSampler(_Sampler):
    """Euler discrete: no fitting, no special training."""

    scheme: Literal["ed"]


Sampler: TypeAlias = Annotated[OlssSampler | LcmSampler | EdSampler, Field(discriminator="scheme")]


class _Task(Spec):
    name: Name
    """Unique in the recipe."""
    adapter: Name | None
    """An adapter declared under `adapters`, or null for the foundation model as it is."""
    sampler: Sampler
    guidance: float = Field(default=1.0, ge=1.0, le=50.0)
    """Classifier-free guidance; 1 is none and halves the U-Net runs."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Of the noise; item i of the inputs uses seed + i."""


class TextToImageTask(_Task):
    """A prompt becomes an image. The prompts stand here or in a collection of inputs, whose images are then not used."""

    kind: Literal["text-to-image"]
    prompts: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | None = None
    """One image each."""
    inputs: Inputs | None = Field(default=None, validate_default=True)
    """Prompts and, where known, what they should look like; instead of `prompts`."""

    @field_validator("inputs")
    @classmethod
    def _either(cls, inputs: Inputs | None, info: ValidationInfo) -> Inputs | None:
        if "prompts" in info.data and (info.data["prompts"] is None) == (inputs is None):
            found = "neither" if inputs is None else "both"
            refuse([Problem(location=(), reason=f"expected either 'prompts' or 'inputs', found {found}")])
        return inputs


class ImageToImageTask(_Task):
    """An image becomes another that keeps its composition."""

    kind: Literal["image-to-image"]
    strength: float = Field(gt=0.0, le=1.0)
    """How much of the noise schedule is run: 1 keeps nothing of the image."""
    inputs: Inputs
    """Images to start from."""


class InpaintTask(_Task):
    """The masked part of an image is replaced."""

    kind: Literal["inpaint"]
    strength: float = Field(default=1.0, gt=0.0, le=1.0)
    """How much of the noise schedule is run: 1 keeps nothing of what is under the mask."""
    inputs: Inputs
    """Images with masks."""


Task: TypeAlias = Annotated[TextToImageTask | ImageToImageTask | InpaintTask, Field(discriminator="kind")]
