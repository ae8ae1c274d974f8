"""LoRA config: a PEFT configuration as JSON -> what it says of ranks and scales, and what a graph with LoRA inputs cannot do."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from quadbench.quad.adapters.reading import AdapterProblem, Reading, named
from quadbench.quad.adapters.site_patterns import SitePattern
from quadbench.quad.model.values import GREATEST
from quadbench.spec.document import describe

MOST_BYTES = 2**20  # of the JSON; those that PEFT writes for a U-Net have some ten thousand
MOST_BRANCHES = 512  # of all keys of a pattern together; Stable Diffusion's U-Net has 278 sites, each compared with all
MOST_STARS = 32  # branches with .*, which cost more to compare
MOST_REASONS = 5  # in a message
OF_DIFFERENT_ADAPTERS = "tensors and configuration are of different adapters; put those together that belong together"
_CHANGE_THE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to initialize a LoRA that subtract it from the base weights, which are then no longer the foundation model's."""
_UNSUPPORTED = ("use_dora", "lora_bias", "use_qalora", "use_bdlora", "layer_replication")
"""Keys of a LoraConfig that ask for another computation than up*down*x at each site of the foundation model."""


def _checked(key: str) -> str:
    SitePattern(key)
    return key


_Key = Annotated[str, AfterValidator(_checked)]
_Rank = Annotated[int, Field(ge=1, le=65536)]
_Alpha = Annotated[float, Field(ge=-GREATEST, le=GREATEST)]
_Number = TypeVar("_Number", int, float)


def _bounded(values: dict[str, float] | None) -> dict[str, float] | None:
    patterns = [SitePattern(key) for key in values or {}]
    if sum(pattern.branches for pattern in patterns) > MOST_BRANCHES or sum(pattern.stars for pattern in patterns) > MOST_STARS:
        raise ValueError(f"expected at most {MOST_BRANCHES} sites or alternatives, {MOST_STARS} of them with .*")
    return values


class PeftType(StrEnum):
    """The `peft_type` of a configuration: LoRA has graph inputs, of the others a conversion makes a LoRA."""

    LORA = "LORA"
    LOHA = "LOHA"
    LOKR = "LOKR"


class _Fields(BaseModel):
    """The fields of a LoHaConfig or LoKrConfig that matter here; PEFT writes all of them, and others."""

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    r: _Rank
    alpha: _Alpha
    rank_pattern: Annotated[dict[_Key, _Rank] | None, AfterValidator(_bounded)] = None
    alpha_pattern: Annotated[dict[_Key, _Alpha] | None, AfterValidator(_bounded)] = None


class _LoraFields(_Fields):
    """The same fields of a LoraConfig, which has another name for alpha, and more."""

    alpha: _Alpha = Field(alias="lora_alpha")
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    use_qalora: bool | None = None
    use_bdlora: Any = None  # a configuration of its own
    layer_replication: Any = None  # a list of ranges of layers
    init_lora_weights: bool | str | None = None


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A configuration's word on ranks and scales. Of the patterns that mean a site the first one counts, as in PEFT."""

    kind: PeftType
    rank: int
    alpha: float
    ranks: tuple[tuple[SitePattern, int], ...]
    alphas: tuple[tuple[SitePattern, float], ...]
    is_rank_stabilized: bool
    problems: tuple[AdapterProblem, ...]

    def rank_at(self, site: str) -> int:
        """Return r at a site."""
        return next((rank for pattern, rank in self.ranks if pattern.matches(site)), self.rank)

    def scale(self, site: str, rank: int) -> float:
        """Return alpha / r, or alpha / sqrt(r) for rsLoRA (Kalajdzievski 2023)."""
        alpha = next((alpha for pattern, alpha in self.alphas if pattern.matches(site)), self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilized else rank)


def adapter_config(values: dict[str, Any], kind: PeftType = PeftType.LORA) -> AdapterConfig:
    """Read a LoraConfig, LoHaConfig or LoKrConfig.

    Raises:
        ValueError: a value is missing or wrong; the text lists the first five.
    """
    try:
        fields = (_LoraFields if kind is PeftType.LORA else _Fields).model_validate(values)
    except ValidationError as error:
        raise ValueError(_explained(error)) from error
    return AdapterConfig(
        kind=kind,
        rank=fields.r,
        alpha=fields.alpha,
        ranks=_patterns(fields.rank_pattern),
        alphas=_patterns(fields.alpha_pattern),
        is_rank_stabilized=isinstance(fields, _LoraFields) and bool(fields.use_rslora),
        problems=tuple(_problems(fields)) if isinstance(fields, _LoraFields) else (),
    )


def follow(config: AdapterConfig, reading: Reading) -> Reading:
    """Return a reading that was scaled by the configuration, with the problems of both and where their ranks differ."""
    differing = rank_problems(config, {site: pair.rank for site, pair in reading.pairs.items()})
    return Reading(pairs=reading.pairs, scales=reading.scales, problems=(*config.problems, *reading.problems, *differing))


def rank_problems(config: AdapterConfig, ranks: Mapping[str, int]) -> list[AdapterProblem]:
    """Say where sites have other ranks than the configuration says: one problem, if any."""
    differing = [site for site, rank in ranks.items() if rank != config.rank_at(site)]
    if not differing:
        return []
    first = f"rank {ranks[differing[0]]} where its configuration says {config.rank_at(differing[0])}"
    return [AdapterProblem(message=f"has {first}, at {named(differing)}", hint=OF_DIFFERENT_ADAPTERS)]


def _patterns(values: Mapping[str, _Number] | None) -> tuple[tuple[SitePattern, _Number], ...]:
    return tuple((SitePattern(key), value) for key, value in (values or {}).items())


def _explained(error: ValidationError) -> str:
    """Say what is wrong with the first five values."""
    reasons = []
    for details in error.errors(include_url=False):
        key = ".".join(str(part) for part in details["loc"] if part != "[key]")
        shown = "" if details["type"] == "missing" else f", found {describe(details['input'])}"
        reason = "missing" if details["type"] == "missing" else details["msg"].removeprefix("Value error, ").lower()
        reasons.append(f"{key}: {reason}{shown}")
    more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
    return "; ".join(reasons[:MOST_REASONS]) + more


def _problems(fields: _LoraFields) -> list[AdapterProblem]:
    """List what a LoraConfig asks for and a graph with LoRA inputs cannot do."""
    asked = {name: getattr(fields, name) for name in _UNSUPPORTED}
    problems = [
        AdapterProblem(message=f"uses {feature}, which has no graph inputs", hint="train it as plain LoRA")
        for feature, is_on in asked.items()
        if is_on
    ]
    initialized = fields.init_lora_weights
    if isinstance(initialized, str) and initialized.startswith(_CHANGE_THE_BASE):
        hint = (
            "save it with save_pretrained(..., path_initial_model_for_weight_conversion=...), which makes it a LoRA of the base"
        )
        problems.append(
            AdapterProblem(message=f"was initialized by {initialized}, which changes the base weights too", hint=hint)
        )
    return problems
