"""Family: the record of a family of models, and the names of families in messages. This module does not import torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from quadbench.artifacts.bundle import TaskKind


class FamilyName(StrEnum):
    """The name of a family of models, as messages say it. quadbench takes only families with a record."""

    SD1 = "Stable Diffusion 1.x"
    SD2 = "Stable Diffusion 2.x"
    SDXL = "Stable Diffusion XL"
    SD3 = "Stable Diffusion 3"
    FLUX = "FLUX"
    PIXART = "PixArt"
    SANA = "Sana"
    OTHER_TRANSFORMER = "a diffusion transformer"


class Source(StrEnum):
    """The origin of a condition of the denoiser."""

    STEP = "step"  # the task's tensor of that name, with a row for each step of the sampler
    TASK = "task"  # the same, with one row
    PROMPT = "prompt"  # the text encoder's output of that name


@dataclass(frozen=True, kw_only=True)
class Condition:
    """An input of the denoiser's graph beside `sample`. Its value goes to `argument` of the denoiser's `forward`, where a dot
    leads into a dict.

    If `module` is not None, the value instead replaces what this module of the denoiser computes: the embedding of a time step,
    or for the source TASK of `numbers`, which are computed from a picture's height and width in pixels.
    """

    name: str
    source: Source
    argument: str
    module: str | None = None
    numbers: Callable[[int, int], tuple[float, ...]] | None = None


@dataclass(frozen=True, kw_only=True)
class PooledState:
    """A text encoder's final state at the first end token, projected: the condition `output`. The graph's input `end` has 1 at
    that token and 0 elsewhere, as compilers for NPUs do not take a computed index.
    """

    output: str
    end: str


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """A text encoder of the model: the folders of its weights and of its tokenizer, and the name of its tokens in the graph. Its
    hidden states are the condition `output`; those of several encoders lie side by side in its channels. They are those of layer
    `layer`, counted as transformers counts `hidden_states`, without the final normalization; None takes the last with it.
    """

    part: str
    tokenizer: str
    tokens: str
    output: str
    layer: int | None = None
    pooled: PooledState | None = None


@dataclass(frozen=True, kw_only=True)
class ModuleClass:
    """A class of a library, by its name."""

    library: Literal["diffusers", "transformers"]
    name: str


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family of models. A folder in diffusers' layout belongs to it if model_index.json names one of its `pipelines`, and the
    denoiser's configuration is one that it `holds`.

    `modules` maps each folder with weights to its class, `pipelines` each kind of task to diffusers' pipeline. `text_width` is
    the number of channels of the text in released models, by which files are recognized. `without` are the pipelines' arguments
    for parts that quadbench leaves out. `added` is the U-Net's `addition_embed_type`. `zeros_key` is the key of model_index.json
    that says whether zeros take the place of an absent negative prompt; a family without it encodes an empty prompt.
    """

    name: FamilyName
    pipelines: Mapping[TaskKind, str]
    modules: Mapping[str, ModuleClass]
    encoders: tuple[TextEncoder, ...]
    conditions: tuple[Condition, ...]
    text_width: int
    holds: Callable[[Mapping[str, Any]], bool]
    without: Mapping[str, bool | None] = field(default_factory=dict)
    added: str | None = None
    zeros_key: str | None = None

    @property
    def folders(self) -> tuple[str, ...]:
        """Return the names of a model's folders: those with weights, tokenizers and the scheduler."""
        return (*self.modules, *dict.fromkeys(encoder.tokenizer for encoder in self.encoders), "scheduler")

    def conditions_from(self, *sources: Source) -> tuple[Condition, ...]:
        """Return the conditions with one of the sources, in the order of the graph's inputs."""
        return tuple(condition for condition in self.conditions if condition.source in sources)
