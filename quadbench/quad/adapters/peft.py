"""PEFT and diffusers: reading LoRA files with PEFT's JSON configuration, from a folder or from a file's metadata."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import torch
from diffusers.utils import convert_unet_state_dict_to_peft
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from quadbench.errors import AdapterError
from quadbench.quad.adapters.kohya import FACTORS, Method, WeightUpdates, read_weight_updates
from quadbench.quad.adapters.lora_pairs import AdapterProblem, KeyOf, LoraPart, LoraReading, TensorKey, first_name, read_pairs
from quadbench.quad.model.weight_faults import GREATEST
from quadbench.quad.model_files import DIFFUSERS_TENSORS, PEFT_CONFIG, PEFT_TENSORS
from quadbench.spec import is_file
from quadbench.spec.yaml_document import describe

MAX_LENGTH = 256  # characters of a key; Stable Diffusion's longest site has 63
EXPECTED = "a site's name or the end of one, as the regular expressions of PEFT's patterns are not read"
_PATTERN = re.compile(r"\^?(?:\\?\.|[A-Za-z0-9_\-])+\$?")  # nothing that a search would try twice
MAX_BYTES = 2**20  # of the JSON; PEFT writes some ten thousand bytes for a U-Net
MAX_PATTERNS = 1024  # of a rank_pattern or alpha_pattern; a U-Net has at most 794 sites
MAX_REASONS = 5  # in a message
OF_DIFFERENT_ADAPTERS = "use tensors and configuration of the same adapter"
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""LoRA initializations that also change the base weights, so that the LoRA does not fit the foundation model."""
_UNSUPPORTED = ("use_dora", "lora_bias", "use_qalora", "use_bdlora", "layer_replication")
"""Keys of a LoraConfig that require another computation than up*down*x at each site."""
_Rank = Annotated[int, Field(ge=1, le=65536)]
_Alpha = Annotated[float, Field(ge=-GREATEST, le=GREATEST)]
PREFIX = "unet."
PREFIXES = (PREFIX, "text_encoder.", "text_encoder_2.")
UNET_ROOTS = ("down_blocks.", "mid_block.", "up_blocks.", "conv_in.", "conv_out.", "time_embedding.", "add_embedding.")
METADATA = "lora_adapter_metadata"  # diffusers.loaders.lora_base.LORA_ADAPTER_METADATA_KEY
_DIFFUSERS_KEY = re.compile(r"^(?P<site>.+?)(\.lora_(?P<side>[AB])(\.default)?\.weight|\.alpha)$")
_TEXT_ENCODER_KEY = re.compile(
    r"^(?P<prefix>text_encoder(?:_2)?\.)(?P<site>.+?)\."
    r"(?:(?:lora_(?P<side>[AB])(?:\.default)?|lora(?:_linear_layer)?\.(?P<old>down|up))\.weight|alpha)$"
)
_PARTS = {"A": LoraPart.DOWN, "down": LoraPart.DOWN, "B": LoraPart.UP, "up": LoraPart.UP, None: LoraPart.ALPHA}
_PEFT_KEY = re.compile(r"^base_model\.model\.(?P<site>.+)\.lora_(?P<side>[AB])(\.default)?\.weight$")
_DIFFERENCE_KEY = re.compile(rf"^base_model\.model\.(?P<site>.+)\.(?P<part>{FACTORS})(\.default)?$")


class SitePattern:
    """A key of PEFT's rank_pattern or alpha_pattern: a layer's name, or its end after a dot. `^` asks for the whole name."""

    def __init__(self, key: str) -> None:
        """Parse a key of rank_pattern or alpha_pattern. Raise ValueError if it is more than a name."""
        if len(key) > MAX_LENGTH or not _PATTERN.fullmatch(key):
            raise ValueError(f"expected {EXPECTED}")
        name = key.removeprefix("^").removesuffix("$")
        self._is_whole, self._length, self._name = key.startswith("^"), len(name.replace("\\", "")), re.compile(name)

    def matches(self, site: str) -> bool:
        """Return whether the key names a layer, as for PEFT."""
        start = len(site) - self._length  # the only place where it can begin, so that long keys take no time
        is_there = start == 0 or (start > 0 and site[start - 1] == "." and not self._is_whole)
        return is_there and self._name.match(site, start) is not None


def _checked(key: str) -> str:
    SitePattern(key)
    return key


_Key = Annotated[str, AfterValidator(_checked)]


def _bounded(values: dict[str, float] | None) -> dict[str, float] | None:
    if len(values or {}) > MAX_PATTERNS:
        raise ValueError(f"expected at most {MAX_PATTERNS} sites")
    return values


class PeftType(StrEnum):
    """The `peft_type` of a PEFT configuration. LoRA is usable directly; LoHa and LoKr after conversion to LoRA."""

    LORA = "LORA"
    LOHA = "LOHA"
    LOKR = "LOKR"


class AdapterConfig(BaseModel):
    """The ranks and scales in a PEFT LoHaConfig or LoKrConfig. If several patterns match a layer, the first wins, as in PEFT."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    kind: PeftType
    rank: _Rank = Field(alias="r")
    alpha: _Alpha
    rank_pattern: Annotated[dict[_Key, _Rank] | None, AfterValidator(_bounded)] = None
    alpha_pattern: Annotated[dict[_Key, _Alpha] | None, AfterValidator(_bounded)] = None

    @cached_property
    def ranks(self) -> list[tuple[SitePattern, int]]:
        """The entries of PEFT's rank_pattern as a list of pairs: the parsed pattern of layer names, and the rank."""
        return [(SitePattern(key), rank) for key, rank in (self.rank_pattern or {}).items()]

    @cached_property
    def alphas(self) -> list[tuple[SitePattern, float]]:
        """The entries of PEFT's alpha_pattern as a list of pairs: a SitePattern that matches layer names, and their alpha."""
        return [(SitePattern(key), alpha) for key, alpha in (self.alpha_pattern or {}).items()]

    @property
    def problems(self) -> tuple[AdapterProblem, ...]:
        """A tuple with one AdapterProblem for each unsupported setting of a LoraConfig, such as DoRA; empty for LoHa and LoKr."""
        return ()

    def rank_at(self, site: str) -> int:
        """Return the rank that the configuration gives a layer."""
        return next((rank for pattern, rank in self.ranks if pattern.matches(site)), self.rank)

    def scale(self, site: str, rank: int) -> float:
        """Return a layer's factor on up*down: alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023)."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.matches(site)), self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)

    @property
    def is_rank_stabilized(self) -> bool:
        """Return whether the adapter uses rsLoRA."""
        return False


class _LoraConfig(AdapterConfig):
    """A PEFT LoraConfig, which calls alpha `lora_alpha`, and has fields that LoHaConfig and LoKrConfig lack."""

    alpha: _Alpha = Field(alias="lora_alpha")
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    use_qalora: bool | None = None
    use_bdlora: Any = None  # a configuration of its own
    layer_replication: Any = None  # a list of ranges of layers
    init_lora_weights: bool | str | None = None

    @property
    def is_rank_stabilized(self) -> bool:
        return bool(self.use_rslora)

    @property
    def problems(self) -> tuple[AdapterProblem, ...]:
        asked = {name: getattr(self, name) for name in _UNSUPPORTED}
        problems = [
            AdapterProblem(message=f"uses {feature}, which has no graph inputs", hint="train the adapter as plain LoRA")
            for feature, is_on in asked.items()
            if is_on
        ]
        method = self.init_lora_weights
        if isinstance(method, str) and method.startswith(_CHANGE_THE_BASE):
            keyword = "path_initial_model_for_weight_conversion=..."
            hint = f"save it with save_pretrained(..., {keyword}), which makes it a LoRA of the base"
            message = f"was initialized by {method}, which changes the base weights too"
            problems.append(AdapterProblem(message=message, hint=hint))
        return tuple(problems)


def adapter_config(values: dict[str, Any], kind: PeftType = PeftType.LORA) -> AdapterConfig:
    """Parse the JSON values of a LoraConfig, LoHaConfig or LoKrConfig. Raise ValueError if they are invalid."""
    try:
        return (_LoraConfig if kind is PeftType.LORA else AdapterConfig).model_validate({**values, "kind": kind})
    except ValidationError as error:
        reasons = []
        for details in error.errors(include_url=False):
            key = ".".join(str(part) for part in details["loc"] if part != "[key]")
            shown = "" if details["type"] == "missing" else f", found {describe(details['input'])}"
            reason = "missing" if details["type"] == "missing" else details["msg"].removeprefix("Value error, ").lower()
            reasons.append(f"{key}: {reason}{shown}")
        more = f"; and {len(reasons) - MAX_REASONS} more" if len(reasons) > MAX_REASONS else ""
        raise ValueError("; ".join(reasons[:MAX_REASONS]) + more) from error


def apply(config: AdapterConfig, reading: LoraReading) -> LoraReading:
    """Return a LoraReading with problems added: unsupported settings of the PEFT configuration, and ranks that differ from it."""
    differing = rank_problems(config, {site: pair.rank for site, pair in reading.pairs.items()})
    return LoraReading(pairs=reading.pairs, scales=reading.scales, problems=(*config.problems, *reading.problems, *differing))


def rank_problems(config: AdapterConfig, ranks: Mapping[str, int]) -> list[AdapterProblem]:
    """Return a list with one problem if any layer has another rank than the configuration says; else an empty list."""
    differing = [site for site, rank in ranks.items() if rank != config.rank_at(site)]
    if not differing:
        return []
    first = f"rank {ranks[differing[0]]} where its configuration says {config.rank_at(differing[0])}"
    return [AdapterProblem(message=f"has {first}, at {first_name(differing)}", hint=OF_DIFFERENT_ADAPTERS)]


def prefix_of(names: Iterable[str]) -> str:
    """Return the prefix of a file's U-Net tensors: `unet.`, or '' if no tensor name begins with `unet.` or `text_encoder.`."""
    return PREFIX if any(name.startswith(PREFIXES) for name in names) else ""


def read_diffusers(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> LoraReading:
    """Read a diffusers file's U-Net LoRA into a LoraReading. Scale `up` by the LoraConfig, else by alpha / r (1 if no alpha)."""
    prefix = prefix_of(tensors)

    def key_of(name: str) -> TensorKey | None:
        if not name.startswith(prefix):
            return None
        # diffusers' own renaming: .processor.to_q_lora.down and .to_q.lora.down become .to_q.lora_A
        (renamed,) = convert_unet_state_dict_to_peft({name.removeprefix(prefix): None})
        return _key(_DIFFUSERS_KEY, renamed)

    return _read(tensors, metadata, prefix, key_of)


def read_text_encoder(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> LoraReading:
    """Read a diffusers file's text encoder LoRA into a LoraReading. Without LoraConfig, scale by alpha / r (1 without alpha)."""
    return _read(tensors, metadata, "text_encoder.", partial(_key, _TEXT_ENCODER_KEY))


def _read(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str], prefix: str, key_of: KeyOf) -> LoraReading:
    try:
        config = _config(metadata.get(METADATA), prefix)
    except (ValueError, RecursionError) as error:
        problem = AdapterProblem(
            message=f"has metadata '{METADATA}' that is not a LoraConfig: {error}", hint="save the adapter again with diffusers"
        )
        return LoraReading(pairs={}, scales={}, problems=(problem,))

    def scale_of(site: str, rank: int, alpha: float | None) -> float:
        if config:
            return config.scale(site, rank)
        return 1.0 if alpha is None else alpha / rank

    reading = read_pairs(tensors, key_of, scale_of)
    return apply(config, reading) if config else reading


def _config(text: str | None, prefix: str) -> AdapterConfig | None:
    """Parse the LoraConfig in diffusers metadata from the JSON keys that begin with `prefix`. Return None if there are none."""
    if text is None:
        return None
    if len(text) > MAX_BYTES:
        raise ValueError(f"found {len(text)} characters, expected at most {MAX_BYTES}")
    configs = json.loads(text)
    if not isinstance(configs, dict):
        raise ValueError("expected keys and values")
    values = {key.removeprefix(prefix): value for key, value in configs.items() if key.startswith(prefix)}
    return adapter_config(values) if values else None


def _key(pattern: re.Pattern[str], name: str) -> TensorKey | None:
    """Parse a tensor name with a regular expression into a TensorKey (layer, role). Return None if the name does not match."""
    match = pattern.match(name)
    if match is None:
        return None
    groups = match.groupdict()
    return TensorKey(site=groups["site"], part=groups.get("part") or _PARTS[groups.get("side") or groups.get("old")])


_METHODS = {PeftType.LOHA: Method.LOHA, PeftType.LOKR: Method.LOKR}


def read_config(name: str, folder: Path) -> AdapterConfig:
    """Read the PEFT configuration from a folder's adapter_config.json."""
    path = folder / PEFT_CONFIG
    if not is_file(path):
        hint = f"give a folder with {PEFT_CONFIG} and {PEFT_TENSORS}, or with {DIFFUSERS_TENSORS}"
        raise AdapterError(f"adapter '{name}': '{path}' does not exist", hint=hint)
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise AdapterError(f"adapter '{name}': '{path}' has more than {MAX_BYTES} bytes; expected a LoraConfig")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"adapter '{name}': '{path}' is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise AdapterError(f"adapter '{name}': '{path}' contains {describe(values)}; expected keys and values")
    if (kind := values.get("peft_type")) not in list(PeftType):
        shown = kind[:64] if isinstance(kind, str) else describe(kind)
        hint = "convert LOHA or LOKR to LoRA with quadbench adapter convert; only LoRA has graph inputs"
        raise AdapterError(f"adapter '{name}' is a {shown} adapter; expected LORA", hint=hint)
    try:
        return adapter_config(values, PeftType(kind))
    except ValueError as error:
        raise AdapterError(
            f"adapter '{name}': '{path}': {error}", hint="let PEFT write the file with save_pretrained(folder)"
        ) from error


def read_peft(tensors: Mapping[str, torch.Tensor], config: AdapterConfig) -> LoraReading:
    """Read the LoRA pairs of a PEFT folder into a LoraReading, by layer. Scale each pair as adapter_config.json says."""
    reading = apply(config, read_pairs(tensors, partial(_key, _PEFT_KEY), lambda site, rank, _alpha: config.scale(site, rank)))
    if not reading.pairs or config.kind is PeftType.LORA:
        return reading
    return replace(reading, problems=(*reading.problems, _unsupported_method("LoRA", config)))


def read_peft_differences(tensors: Mapping[str, torch.Tensor], config: AdapterConfig) -> WeightUpdates:
    """Read a PEFT folder's LoHa or LoKr tensors into WeightUpdates, by layer. Scale each layer as adapter_config.json says."""
    read = read_weight_updates(
        tensors, partial(_key, _DIFFERENCE_KEY), lambda site, _parts, _rank: config.scale(site, config.rank_at(site))
    )
    ranks = {site: one.rank for site, one in read.by_site.items() if one.rank is not None}
    others = {one.method for one in read.by_site.values()} - {_METHODS.get(config.kind)}
    mixed = [_unsupported_method(method, config) for method in sorted(others)]
    return replace(read, problems=(*read.problems, *rank_problems(config, ranks), *mixed))


def _unsupported_method(method: str, config: AdapterConfig) -> AdapterProblem:
    message = f"has tensors of {method} where its configuration says {config.kind}"
    return AdapterProblem(message=message, hint=OF_DIFFERENT_ADAPTERS)
