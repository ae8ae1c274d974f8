"""Foundation: loading and checking a recipe's foundation model in float32, or creating one with random weights."""

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, assert_never

import diffusers
import torch
import transformers
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, DDIMScheduler
from diffusers.loaders.single_file_utils import SingleFileComponentError
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import CLIPTokenizer

from quadbench import zoo
from quadbench.artifacts.bundle import TaskKind
from quadbench.artifacts.safe_text import one_line
from quadbench.errors import UserError
from quadbench.quad import model_files
from quadbench.quad.families.family import Family, Source, TextEncoder
from quadbench.quad.families.sd1 import SD1
from quadbench.quad.model.weight_faults import faults_by_name
from quadbench.quad.model_family import SAVE_AGAIN, SCHEDULER_CONFIG, checkpoint_stated, read_folder
from quadbench.quad.samplers.schedule import Schedule, SchedulerConfig, scheduler_config
from quadbench.recipe import CheckpointFoundation
from quadbench.recipe.tasks import BuiltinFoundation, DiffusersFoundation, RandomFoundation
from quadbench.recipe.tasks import Foundation as FoundationSpec
from quadbench.spec import read_json

_MAX_CHARACTERS = 1000  # shown of a library's message, which may quote a whole file
# Built-in exceptions that libraries raise for invalid configurations, besides their own classes.
_UNFIT = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)


def module_class(family: Family, part: str) -> Any:
    """Return the class of a model's part, a class of diffusers or transformers."""
    named = family.modules[part]
    return getattr({"diffusers": diffusers, "transformers": transformers}[named.library], named.name)


def random_module(geometry: str, part: str, seed: int, family: Family = SD1) -> nn.Module:
    """Return a model part with random weights, equal for equal seeds. torch's global random generator is unchanged."""
    folder, kind = model_files.part_folder(geometry, part), module_class(family, part)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if family.modules[part].library == "diffusers":
            module: nn.Module = kind.from_config(kind.load_config(folder, local_files_only=True))
        else:
            module = kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        return module


def clip_tokenizer() -> CLIPTokenizer:
    """Return CLIP's tokenizer: 49408 tokens, 77 per prompt. The vocabulary is computed from the stored merges."""
    folder = model_files.GEOMETRIES / model_files.CHECKPOINT_GEOMETRY / "tokenizer"
    lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    characters = sorted(ByteLevel.alphabet())
    words = [*characters, *(f"{c}</w>" for c in characters), *(left + right for left, right in merges)]
    vocabulary = {word: i for i, word in enumerate((*words, "<|startoftext|>", "<|endoftext|>"))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def check_tensors(foundation: str, part: str, module: nn.Module) -> None:
    """Raise UserError if a model part lacks tensors, or has weights that are NaN, infinite or above 65504 in magnitude."""
    tensors = module.state_dict()
    absent = [name for name, tensor in tensors.items() if tensor.is_meta]
    if absent:
        place = f"'{absent[0]}'{_more(absent)} in its {part}"
        raise UserError(f"foundation model '{foundation}' lacks {place}; expected all tensors", hint=SAVE_AGAIN)
    for fault, names in faults_by_name(tensors).items():
        place = f"'{names[0]}'{_more(names)} of its {part}"
        raise UserError(f"foundation model '{foundation}' has {fault.holds} in {place}", hint=fault.hint)


def check_loading(foundation: str, part: str, loading: Mapping[str, Any]) -> None:
    """Raise UserError if from_pretrained reported missing or misshapen tensors. It silently fills them with random values."""
    for kind, what in (("missing_keys", "lacks"), ("mismatched_keys", "has another shape for")):
        names = sorted(entry if isinstance(entry, str) else entry[0] for entry in loading.get(kind) or ())
        if names:
            raise UserError(
                f"foundation model '{foundation}' {what} '{names[0]}'{_more(names)} in its {part}; "
                "expected the tensors of its configuration",
                hint=SAVE_AGAIN,
            )


def check_types(foundation: str, part: str, module: nn.Module, files: Sequence[Path]) -> None:
    """Refuse weights stored as integers, booleans or complex numbers, which libraries would silently convert."""
    wanted = {name for name, tensor in module.state_dict().items() if tensor.is_floating_point()}
    for path in files:
        with safe_open(path, framework="pt") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys() if name in wanted}  # noqa: SIM118
        odd = [name for name, kind in kinds.items() if not kind.startswith(("F", "BF"))]
        if odd:
            raise UserError(
                f"foundation model '{foundation}' has '{odd[0]}'{_more(odd)} in its {part} as {kinds[odd[0]]}; "
                "expected floating-point numbers",
                hint=SAVE_AGAIN,
            )


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


@dataclass(kw_only=True)
class Foundation:
    """A latent diffusion model of a family, in evaluation mode and without gradients.

    The weights of a part are loaded on first use and can be released, as a build seldom needs them twice. All callers share the
    modules and must not change them.
    """

    name: str  # for messages
    family: Family
    skeleton: nn.Module  # the U-Net without its weights: modules, shapes and configuration
    readers: Mapping[str, Callable[[], nn.Module]]  # by the parts of the family
    tokenizers: Mapping[str, CLIPTokenizer]  # by folder
    schedule: Schedule
    scheduler: SchedulerConfig
    sizes: model_files.ModelSizes
    prompt_shapes: Mapping[str, tuple[int, ...]]  # of the conditions that text encoders give, by name
    has_zeros_without_prompt: bool = False  # in place of what text encoders give for an absent negative prompt
    _parts: dict[str, nn.Module] = field(default_factory=dict, init=False, repr=False)

    @property
    def unet(self) -> nn.Module:
        """The denoiser in float32, such as a diffusers UNet2DConditionModel; its weights are loaded on first use."""
        return self.part("unet")

    @property
    def vae(self) -> nn.Module:
        """The VAE, a diffusers AutoencoderKL in float32; its weights are loaded on first use."""
        return self.part("vae")

    def release(self) -> None:
        """Free the memory of the model's weights. Each part is loaded again on its next use."""
        self._parts.clear()
        gc.collect()  # traced modules have reference cycles

    @property
    def latent_shape(self) -> tuple[int, int, int, int]:
        """The shape of a latent, (1, 4, h, w)."""
        return 1, int(self.skeleton.config.in_channels), self.sizes.latent, self.sizes.latent

    def part(self, name: str) -> nn.Module:
        """Return a part of the family's model in float32; its weights are loaded on first use."""
        if name not in self._parts:
            module = self.readers[name]().eval().requires_grad_(False)
            check_tensors(self.name, name, module)
            self._parts[name] = module
        return self._parts[name]

    def tokenize(self, prompt: str) -> dict[str, tuple[int, ...]]:
        """Return a prompt's token ids for each text encoder, by the name of its graph input. Each tuple is padded or truncated to
        the tokenizer's maximum length. An input for a pooled state has 1 at the first end token.
        """
        inputs: dict[str, tuple[int, ...]] = {}
        for encoder in self.family.encoders:
            inputs |= self.encoder_inputs(encoder, _token_ids(self.tokenizers[encoder.tokenizer], prompt))
        return inputs

    def tokenize_negative(self, prompt: str | None) -> dict[str, tuple[int, ...]] | None:
        """Return a negative prompt's token ids as `tokenize` does. Return None for zeros in place of what text encoders give."""
        return None if prompt is None and self.has_zeros_without_prompt else self.tokenize(prompt or "")

    def encoder_inputs(self, encoder: TextEncoder, ids: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """Return the graph inputs of one text encoder for token ids, of which one must be the tokenizer's end token."""
        if encoder.pooled is None:
            return {encoder.tokens: ids}
        first = ids.index(self.tokenizers[encoder.tokenizer].eos_token_id)
        return {encoder.tokens: ids, encoder.pooled.end: tuple(int(i == first) for i in range(len(ids)))}


def _token_ids(tokenizer: CLIPTokenizer, prompt: str) -> tuple[int, ...]:
    encoded = tokenizer(prompt, padding="max_length", truncation=True, max_length=tokenizer.model_max_length)
    return tuple(int(i) for i in encoded["input_ids"])


def open_foundation(spec: FoundationSpec) -> Foundation:
    """Return the model that a recipe's `foundation` describes. Raise UserError for unreadable files or an unsupported U-Net."""
    match spec:
        case BuiltinFoundation(name=name):
            return load_foundation(zoo.foundation_folder(name))
        case DiffusersFoundation(path=path):
            return load_foundation(path, spec.stated)
        case CheckpointFoundation(path=path):
            return load_checkpoint(path, stated=spec.stated)
        case RandomFoundation(geometry=geometry, seed=seed):
            return random_foundation(geometry, seed)
        case _:
            assert_never(spec)


def load_foundation(folder: Path, stated: Mapping[str, Any] | None = None) -> Foundation:
    """Return a Foundation from a diffusers folder. Weights are read only from safetensors files; pickles are not opened.
    `stated` are a recipe's values in place of those of the scheduler's configuration.
    """
    configs = read_folder(folder, stated or {})
    family = configs.family

    def read(part: str) -> nn.Module:
        files = sorted((folder / part).glob("*.safetensors"))
        for file in files:
            model_files.require_weights(file)
        options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        if family.modules[part].library == "diffusers":
            options["torch_dtype"] = torch.float32
        else:  # a tensor of another shape is refused by its name, which transformers itself does not tell
            options |= {"dtype": torch.float32, "ignore_mismatched_sizes": True}
        with _readable(folder), warnings.catch_warnings(action="ignore"):  # of a conversion, which is refused below
            module, loading = module_class(family, part).from_pretrained(folder / part, **options)
        check_loading(str(folder), part, loading)
        check_types(str(folder), part, module, files)
        return module

    with _readable(folder):
        return _foundation(
            name=str(folder),
            family=family,
            configs={part: folder / part for part in family.folders},
            readers={part: partial(read, part) for part in family.modules},
            tokenizers={
                encoder.tokenizer: CLIPTokenizer.from_pretrained(folder / encoder.tokenizer, local_files_only=True)
                for encoder in family.encoders
            },
            scheduler=configs.scheduler,
            has_zeros_without_prompt=configs.has_zeros_without_prompt,
        )


def load_checkpoint(
    path: Path, geometry: str = model_files.CHECKPOINT_GEOMETRY, *, stated: Mapping[str, Any] | None = None
) -> Foundation:
    """Return a Foundation from a single-file model in the original Stable Diffusion layout. Nothing is downloaded.
    The file lacks a tokenizer and configurations. The tokenizer is CLIP's; the configurations are those of `geometry`, with the
    recipe's values `stated` in place of the scheduler's.
    """
    model_files.check_checkpoint(path)
    said = checkpoint_stated(path) | dict(stated or {})
    configs, tokenizer = {part: model_files.part_folder(geometry, part) for part in SD1.folders}, clip_tokenizer()
    options = {"torch_dtype": torch.float32, "local_files_only": True}

    def read(part: str) -> nn.Module:
        with _readable(path):
            module: nn.Module = module_class(SD1, part).from_single_file(str(path), config=str(configs[part]), **options)
        return module

    def read_text_encoder() -> nn.Module:
        others = dict.fromkeys(("unet", "vae", "scheduler", "safety_checker", "feature_extractor")) | {"tokenizer": tokenizer}
        pipeline = getattr(diffusers, SD1.pipelines[TaskKind.TEXT_TO_IMAGE])
        with _readable(path):
            loaded = pipeline.from_single_file(str(path), config=str(configs["text_encoder"].parent), **others, **options)
        module: nn.Module = loaded.text_encoder
        return module

    return _foundation(
        name=str(path),
        family=SD1,
        configs=configs,
        readers={"unet": partial(read, "unet"), "vae": partial(read, "vae"), "text_encoder": read_text_encoder},
        tokenizers={"tokenizer": tokenizer},
        scheduler=_stored_scheduler(str(path), geometry, said),
    )


def random_foundation(geometry: str, seed: int) -> Foundation:
    """Return a Foundation with random weights made from `seed`. `geometry` names its layer sizes, for example `sd15`."""
    return _foundation(
        name=f"random {geometry}",
        family=SD1,
        configs={part: model_files.part_folder(geometry, part) for part in SD1.folders},
        readers={part: partial(random_module, geometry, part, seed) for part in SD1.modules},
        tokenizers={"tokenizer": clip_tokenizer()},
        scheduler=_stored_scheduler(f"random {geometry}", geometry, {}),
    )


def _stored_scheduler(name: str, geometry: str, stated: Mapping[str, Any]) -> SchedulerConfig:
    """Return a stored geometry's SchedulerConfig, with the values `stated` in place of its own."""
    path = model_files.part_folder(geometry, "scheduler") / SCHEDULER_CONFIG
    return scheduler_config(name, read_json(path, fault=UserError), stated)


def embedded_conditions(foundation: Foundation, timesteps: Sequence[float]) -> dict[str, torch.Tensor]:
    """Return the denoiser's conditions of the sampler's time steps, (steps, C), and of the task, (1, C), in float32 by name."""
    rows = {}
    for condition in foundation.family.conditions_from(Source.STEP, Source.TASK):
        assert condition.module is not None
        numbers = timesteps
        if condition.numbers is not None:
            numbers = condition.numbers(foundation.sizes.image, foundation.sizes.image)
        embedded = foundation.skeleton.get_submodule(condition.module)(torch.tensor(numbers, dtype=torch.float32)).float()
        rows[condition.name] = embedded if condition.source is Source.STEP else embedded.reshape(1, -1)
    return rows


def _foundation(
    *,
    name: str,
    family: Family,
    configs: Mapping[str, Path],
    readers: Mapping[str, Callable[[], nn.Module]],
    tokenizers: Mapping[str, CLIPTokenizer],
    scheduler: SchedulerConfig,
    has_zeros_without_prompt: bool = False,
) -> Foundation:
    """Return a Foundation. `configs` maps part names to config folders; `readers` maps part names to loaders () -> nn.Module."""
    vae_config = AutoencoderKL.load_config(configs["vae"], local_files_only=True)
    with init_empty_weights():
        denoiser = module_class(family, "unet")
        skeleton = denoiser.from_config(denoiser.load_config(configs["unet"], local_files_only=True))

    def read_encoder(part: str) -> nn.Module:
        encoder = readers[part]()
        encoder.set_attn_implementation("eager")  # exports to plain nodes
        return encoder

    return Foundation(
        name=name,
        family=family,
        skeleton=skeleton,
        readers={**readers, **{encoder.part: partial(read_encoder, encoder.part) for encoder in family.encoders}},
        tokenizers=tokenizers,
        schedule=_schedule(scheduler),
        scheduler=scheduler,
        sizes=model_files.sizes_of(skeleton.config.sample_size, vae_config),
        prompt_shapes=_prompt_shapes(family, configs, tokenizers),
        has_zeros_without_prompt=has_zeros_without_prompt,
    )


def _prompt_shapes(
    family: Family, configs: Mapping[str, Path], tokenizers: Mapping[str, CLIPTokenizer]
) -> dict[str, tuple[int, ...]]:
    """Return a dict from condition to its shape, (1, T, D) or pooled (1, D). Channels of several encoders add up."""
    shapes: dict[str, tuple[int, ...]] = {}
    for encoder in family.encoders:
        config = module_class(family, encoder.part).config_class.from_pretrained(configs[encoder.part], local_files_only=True)
        others = shapes.get(encoder.output, (0,))[-1]
        shapes[encoder.output] = (1, tokenizers[encoder.tokenizer].model_max_length, others + config.hidden_size)
        if encoder.pooled:
            shapes[encoder.pooled.output] = (1, config.projection_dim)
    return shapes


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """In a `with` block, turn exceptions of diffusers, transformers and safetensors into a UserError that names `path`."""
    try:
        yield
    except (*_UNFIT, SafetensorError, SingleFileComponentError, StrictDataclassError) as error:
        reason = f"{type(error).__name__}: {one_line(str(error), _MAX_CHARACTERS)}"  # libraries may quote whole files
        raise UserError(f"foundation model '{path}' cannot be read: {reason}") from error


def _schedule(config: SchedulerConfig) -> Schedule:
    """Return the noise schedule of a scheduler configuration, with diffusers' alphas."""
    alphas: tuple[float, ...] = ()
    if not config.is_flow:
        alphas = tuple(DDIMScheduler.from_config(config.arguments()).alphas_cumprod.double().tolist())
    return Schedule(
        alphas=alphas,
        prediction=config.prediction,
        spacing=config.spacing,
        final_alpha=1.0 if config.set_alpha_to_one else None,
        shift=config.shift,
        train_steps=config.train_steps,
    )
