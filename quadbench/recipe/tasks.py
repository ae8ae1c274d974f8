"""Recipe tasks: the sources of models, adapters and inputs, the samplers, and the tasks that generate images."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, ValidationInfo, field_validator

from quadbench.spec import Name, Problem, Spec, refuse
from quadbench.spec.spec_model import SpecPath
from quadbench.spec.yaml_document import describe

Spacing: TypeAlias = Literal["leading", "trailing", "linspace"]
Prediction: TypeAlias = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]


def _is_absent(value: object) -> bool:
    return value is None


class BuiltinFoundation(Spec):
    """A foundation model that comes with quadbench."""

    source: Literal["builtin"]
    """`builtin` takes the model that comes with quadbench."""
    name: Name = Field(examples=["emoji-ldm"])
    """The name of the built-in model: emoji-ldm."""


class _ScheduledFoundation(Spec):
    """Base class of models whose noise schedule a recipe can correct. A value that is null does not count in digests."""

    prediction: Prediction | None = Field(default=None, exclude_if=_is_absent, examples=["v_prediction"])
    """What the U-Net predicts: noise (`epsilon`), `v_prediction`, the image (`sample`) or `flow_prediction`.
    The default is null: what the model itself says, else noise."""
    zero_terminal_snr: bool | None = Field(default=None, exclude_if=_is_absent)
    """True if the model was trained with a last time step of noise alone. The default is null: what the model itself says."""

    @property
    def stated(self) -> dict[str, Any]:
        """Return the recipe's own values as a dict from diffusers' keys of a scheduler configuration, without null values."""
        values = {"prediction_type": self.prediction, "rescale_betas_zero_snr": self.zero_terminal_snr}
        return {key: value for key, value in values.items() if value is not None}


class DiffusersFoundation(_ScheduledFoundation):
    """A Stable Diffusion 1.x or 2.x pipeline in diffusers' folder layout."""

    source: Literal["diffusers"]
    """`diffusers` takes a pipeline that diffusers has saved."""
    path: SpecPath = Field(examples=["my-model"])
    """The folder with model_index.json; a relative path starts at the recipe's own folder."""


class CheckpointFoundation(_ScheduledFoundation):
    """A Stable Diffusion 1.x model in one .safetensors file, with the tensor names of the first releases, not of diffusers."""

    source: Literal["checkpoint"]
    """`checkpoint` takes a model in one file."""
    path: SpecPath = Field(examples=["my-model.safetensors"])
    """The .safetensors file; a relative path starts at the recipe's own folder."""


class RandomFoundation(Spec):
    """A model of a published size with random weights. Size, times and memory are realistic, but its images are noise."""

    source: Literal["random"]
    """`random` draws the weights at random."""
    geometry: Literal["sd15", "bk-sdm-base"]
    """The model's size: Stable Diffusion 1.5, or BK-SDM-Base, which has one block less in each stage of the U-Net."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed of the random weights, 0 or more. The default is 0."""


Foundation: TypeAlias = Annotated[
    BuiltinFoundation | DiffusersFoundation | CheckpointFoundation | RandomFoundation, Field(discriminator="source")
]


class BuiltinAdapter(Spec):
    """A LoRA adapter that comes with quadbench."""

    source: Literal["builtin"]
    """`builtin` takes what comes with quadbench."""
    name: Name = Field(examples=["restyle"])
    """The name of the built-in LoRA: restyle, remove-object, sketch-to-image, sticker or portrait."""


class PeftAdapter(Spec):
    """A LoRA adapter saved by PEFT."""

    source: Literal["peft"]
    """Takes a LoRA that PEFT has saved."""
    path: SpecPath = Field(examples=["my-lora"])
    """The folder with adapter_config.json and adapter_model.safetensors; a relative path starts at the recipe's own folder."""


class DiffusersAdapter(Spec):
    """A LoRA adapter saved by diffusers' save_lora_weights."""

    source: Literal["diffusers"]
    """Takes a LoRA that diffusers has saved."""
    path: SpecPath = Field(examples=["my-lora.safetensors"])
    """The .safetensors file, or the folder that save_lora_weights wrote; a relative path starts at the recipe's own folder."""
    unet_only: bool = False
    """True ignores the file's text encoder part, as only the U-Net takes LoRA inputs; the build reports its size.
    The default is false: such a file is refused."""


class KohyaAdapter(Spec):
    """A LoRA adapter saved by kohya's training scripts, or a LoCon saved by LyCORIS."""

    source: Literal["kohya"]
    """Takes a LoRA that kohya's scripts or LyCORIS have saved."""
    path: SpecPath = Field(examples=["my-lora.safetensors"])
    """The .safetensors file; a relative path starts at the recipe's own folder."""
    unet_only: bool = False
    """True ignores the file's text encoder part, as only the U-Net takes LoRA inputs; the build reports its size.
    The default is false: such a file is refused."""


SiteKind: TypeAlias = Literal["attention", "feed-forward", "projection", "convolution"]


class RandomAdapter(Spec):
    """A LoRA adapter with random weights, as large as a trained adapter of equal rank on the same U-Net layers."""

    source: Literal["random"]
    """`random` draws the weights at random."""
    rank: int = Field(ge=1, le=1024, examples=["16"])
    """The LoRA's rank at every site, 1 to 1024."""
    sites: tuple[SiteKind, ...] = Field(default=("attention",), min_length=1)
    """The kinds of modules in the U-Net's blocks that the LoRA changes, at least one. The default is attention alone."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed of the random weights, 0 or more. The default is 0."""


Adapter: TypeAlias = Annotated[
    BuiltinAdapter | PeftAdapter | DiffusersAdapter | KohyaAdapter | RandomAdapter, Field(discriminator="source")
]


class BuiltinInputs(Spec):
    """Evaluation inputs (prompts, images, masks) that come with quadbench, chosen by the name of a built-in LoRA."""

    source: Literal["builtin"]
    """`builtin` takes what comes with quadbench."""
    name: Name = Field(examples=["restyle"])
    """The name of the built-in LoRA whose inputs these are: restyle, remove-object, sketch-to-image, sticker or portrait."""


class FolderInputs(Spec):
    """The user's own evaluation inputs in a folder, whose layout docs/recipe.md describes."""

    source: Literal["folder"]
    """`folder` takes inputs of your own."""
    path: SpecPath = Field(examples=["my-inputs"])
    """The folder with inputs.json and the images that it names; a relative path starts at the recipe's own folder."""


Inputs: TypeAlias = Annotated[BuiltinInputs | FolderInputs, Field(discriminator="source")]


TEACHER_STEPS = 100  # DDIM steps of the trajectory that OLSS is fitted to
LCM_STEPS = 50  # DDIM grid points of consistency distillation, as in diffusers' LCMScheduler

NO_TASK = "none"  # the name of the task before a launch's first switch
MAX_WEIGHT = 4.0  # the greatest adapter weight; shared ranges may grow as much, which costs two bits
MAX_PROMPT_CHARACTERS = 4096
"""The most characters of a prompt. CLIP's text encoder takes only 75 tokens, seldom of more than ten characters."""
MAX_MIX = 200  # the most characters of a mix's name, as for other names in manifests and events


class _Sampler(Spec):
    """Base class of the samplers. It has the only setting that all samplers share: the number of steps."""

    steps: int = Field(ge=1, le=100, examples=["8"])
    """The number of sampler steps, 1 to 100. Each step runs the U-Net once, or twice with guidance above 1."""


class _SpacedSampler(_Sampler):
    """Base class of the samplers whose time steps lie as the model's scheduler configuration says."""

    spacing: Spacing | None = Field(default=None, exclude_if=_is_absent, examples=["trailing"])
    """How time steps are chosen: `leading`, `trailing` (begins with the noisiest) or `linspace`. LoRAs for few steps, such as
    Hyper-SD and Lightning, need trailing. The default is null: the model's own."""


Timesteps = Annotated[tuple[Annotated[int, Field(ge=0, lt=100_000)], ...], Field(min_length=1, max_length=100)]


def _fits_steps(timesteps: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
    """Return `timesteps` if they fall and are as many as `steps`, and the sampler has no `spacing` too."""
    if timesteps is None:
        return None
    if any(later >= earlier for earlier, later in pairwise(timesteps)):
        raise ValueError(f"expected time steps that fall, found {', '.join(map(str, timesteps))}")
    if len(timesteps) != info.data.get("steps", len(timesteps)):
        raise ValueError(f"expected as many time steps as 'steps', {info.data['steps']}, found {len(timesteps)}")
    if info.data.get("spacing"):
        raise ValueError("expected either 'spacing' or 'timesteps', found both")
    return timesteps


class OlssSampler(_SpacedSampler):
    """A sampler with few steps that a build fits to a task's 100-step DDIM trajectory: OLSS, optimal linear subspace search."""

    scheme: Literal["olss"]
    """Fits the steps to this task when the bundle is built."""


class LcmSampler(_Sampler):
    """The latent consistency (LCM) sampler. LCM takes few steps, usually without guidance, and needs adapters trained for LCM."""

    scheme: Literal["lcm"]
    """Takes the steps of latent consistency models."""
    steps: int = Field(ge=1, le=LCM_STEPS, examples=["4"])
    """The number of sampler steps, 1 to 50, from the grid that such models are trained on.
    Each step runs the U-Net once, or twice with guidance above 1."""
    timesteps: Annotated[Timesteps | None, AfterValidator(_fits_steps)] = Field(
        default=None, exclude_if=_is_absent, examples=["[999, 749, 499, 249]"]
    )
    """The time steps themselves, falling, as many as `steps`; DMD2 needs them. The default is null: spread over the grid."""


class EdSampler(_SpacedSampler):
    """The Euler discrete sampler. It needs no specially trained adapter, and a bundle's build does not fit it to a task."""

    scheme: Literal["ed"]
    """Takes the steps of the Euler method."""
    timesteps: Annotated[Timesteps | None, AfterValidator(_fits_steps)] = Field(
        default=None, exclude_if=_is_absent, examples=["[999, 749, 499, 249]"]
    )
    """The time steps themselves, falling, as many as `steps`. The default is null: chosen by `spacing`."""


class DdimSampler(_SpacedSampler):
    """The DDIM sampler, without added noise. LoRAs such as Hyper-SD are made for it."""

    scheme: Literal["ddim"]
    """Takes the steps of DDIM."""


class TcdSampler(_Sampler):
    """The trajectory consistency (TCD) sampler, for adapters trained for it and for Hyper-SD's with one step."""

    scheme: Literal["tcd"]
    """Takes the steps of trajectory consistency models."""
    steps: int = Field(ge=1, le=LCM_STEPS, examples=["4"])
    """The number of sampler steps, 1 to 50, from the grid that such models are trained on.
    Each step runs the U-Net once, or twice with guidance above 1."""
    eta: float = Field(default=0.3, ge=0.0, le=1.0)
    """The share of noise that a step adds anew, 0 to 1: 0 adds none, 1 noises the image as LCM does. The default is 0.3."""
    timesteps: Annotated[Timesteps | None, AfterValidator(_fits_steps)] = Field(
        default=None, exclude_if=_is_absent, examples=["[999, 749, 499, 249]"]
    )
    """The time steps themselves, falling, as many as `steps`. The default is null: spread over the grid."""


Sampler: TypeAlias = Annotated[OlssSampler | LcmSampler | EdSampler | DdimSampler | TcdSampler, Field(discriminator="scheme")]


def _written_out(value: Any) -> Any:
    """Return a task's `adapter` setting as a dict from adapter name to weight. A single name gets weight 1; null becomes {}."""
    match value:
        case None:
            return {}
        case str():
            return {value: 1.0}
        case dict() if value:
            return dict(sorted(value.items()))
    raise ValueError(f"expected the name of an adapter, names with weights, or null; found {describe(value)}")


def _has_a_name(weights: dict[str, float]) -> dict[str, float]:
    if len(mix_name(weights)) > MAX_MIX:
        raise ValueError(f"expected names of at most {MAX_MIX} characters together, found {len(mix_name(weights))}")
    return weights


_Weights = dict[Name, Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT)]]
Weights = Annotated[
    _Weights,
    BeforeValidator(_written_out, json_schema_input_type=_Weights | Name | None),
    AfterValidator(_has_a_name),
    PlainSerializer(lambda weights: weights or None, when_used="json"),  # a recipe that is written can be read again
]


def mix_name(weights: Mapping[str, float]) -> str:
    """Return the name of a mix of weighted adapters, such as `lcm-lora+restyle:0.8`; a weight of 1 is left out."""
    return "+".join(name if weight == 1.0 else f"{name}:{str(weight).removesuffix('.0')}" for name, weight in weights.items())


def is_mix(weights: Mapping[str, float]) -> bool:
    """Return whether the adapter weights form a mix: several adapters, or a single one whose weight is not 1."""
    return len(weights) > 1 or any(weight != 1.0 for weight in weights.values())


def _is_of_a_task(name: str) -> str:
    if name == NO_TASK:
        raise ValueError(f"expected another name than '{NO_TASK}', which means no task at the start of a launch")
    return name


class _Task(Spec):
    """The settings that all kinds of task have: name, adapter, sampler, guidance and seed. Each kind is a subclass."""

    name: Annotated[Name, AfterValidator(_is_of_a_task)] = Field(examples=["mine"])
    """The task's name in records and reports. It is unique in the recipe and not `none`."""
    adapter: Weights = Field(examples=["mine"])
    """The task's adapter, or several adapters with their weights, -4 to 4, from `adapters`. A name alone has weight 1. Weights
    have the same meaning as in diffusers' `set_adapters`. Null uses the foundation model without an adapter."""
    sampler: Sampler = Field(examples=["{scheme: olss, steps: 8}"])
    """The sampler that generates the task's images."""
    guidance: float = Field(default=1.0, ge=1.0, le=50.0)
    """The scale of classifier-free guidance, 1 to 50; 1 is no guidance and halves the U-Net runs. The default is 1."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """The seed of the noise, 0 or more. Item i of the inputs uses seed + i. The default is 0."""


Prompt: TypeAlias = Annotated[str, Field(min_length=1, max_length=MAX_PROMPT_CHARACTERS)]


class TextToImageTask(_Task):
    """A task that makes images from prompts. The prompts are in the recipe or in evaluation inputs; input images are ignored."""

    kind: Literal["text-to-image"]
    """Makes an image from a prompt."""
    prompts: Annotated[tuple[Prompt, ...], Field(min_length=1)] | None = None
    """The prompts, at least one, each of 1 to 4096 characters. Each prompt makes one image.
    The default is null: the prompts are in `inputs`."""
    inputs: Inputs | None = Field(default=None, validate_default=True)
    """The inputs with the prompts and, if known, the right images. The default is null: `prompts` has the prompts."""

    @field_validator("inputs")
    @classmethod
    def _either(cls, inputs: Inputs | None, info: ValidationInfo) -> Inputs | None:
        if "prompts" in info.data and (info.data["prompts"] is None) == (inputs is None):
            given = "neither" if inputs is None else "both"
            refuse([Problem(location=(), reason=f"expected either 'prompts' or 'inputs', found {given}")])
        return inputs


def fault_of_strength(strength: float, sampler: Sampler) -> str | None:
    """Return an error message if an image-to-image or inpaint strength is too low for one sampler step. Else return None."""
    match sampler:
        case OlssSampler():
            steps, schedule = TEACHER_STEPS, f"the {TEACHER_STEPS} steps that olss is fitted to"
        case LcmSampler() | EdSampler() | DdimSampler() | TcdSampler():
            steps, schedule = sampler.steps, f"the {sampler.steps} steps"
    return f"strength {strength:g} runs none of {schedule}; expected at least 1/{steps}" if int(steps * strength) < 1 else None


def _leaves_a_step(strength: float, info: ValidationInfo) -> float:
    sampler = info.data.get("sampler")
    if sampler is not None and (fault := fault_of_strength(strength, sampler)):  # None: the sampler itself is invalid
        refuse([Problem(location=(), reason=fault)])
    return strength


Strength = Annotated[float, Field(gt=0.0, le=1.0), AfterValidator(_leaves_a_step)]


class ImageToImageTask(_Task):
    """A task that makes an image from a prompt and an input image. At a low strength, most of the input image is kept."""

    kind: Literal["image-to-image"]
    """Makes an image from a prompt and another image."""
    strength: Strength = Field(examples=["0.7"])
    """The share of the noise schedule that is run, above 0 and up to 1, at least one step. At 1, almost nothing of the image
    is left."""
    inputs: Inputs = Field(examples=["{source: folder, path: my-inputs}"])
    """The inputs with the images to start from."""


class InpaintTask(_Task):
    """A task that replaces the masked part of an image."""

    kind: Literal["inpaint"]
    """Repaints the masked part of an image."""
    strength: Strength = 1.0
    """The share of the noise schedule that is run, above 0 and up to 1, at least one step. At 1, nothing under the mask is
    kept. The default is 1."""
    composite: bool = True
    """True composites the decoded image with the input: pixels outside the mask are those of the input, with a soft edge.
    False keeps the decoder's whole image. The default is true."""
    inputs: Inputs = Field(examples=["{source: folder, path: my-inputs}"])
    """The inputs with the images and their masks."""


Task: TypeAlias = Annotated[TextToImageTask | ImageToImageTask | InpaintTask, Field(discriminator="kind")]
