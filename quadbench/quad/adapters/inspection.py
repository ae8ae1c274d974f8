"""Inspection: a summary of the layers (sites), ranks and size of an adapter file, and every problem in the file."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from quadbench.errors import AdapterError
from quadbench.quad.adapters.adapter import SITE_ENDINGS, Adapter, LoraPair, OmittedPart
from quadbench.quad.adapters.loading import BaseSites, fit_to_base, read_adapter
from quadbench.quad.adapters.lora_pairs import AdapterProblem
from quadbench.recipe.tasks import SiteKind

_OTHER: Literal["other"] = "other"
Kind: TypeAlias = SiteKind | Literal["other"]


@dataclass(frozen=True, kw_only=True)
class KindRow:
    """A summary of an adapter's layers of one kind, such as attention. `greatest_up` is max|up|, including the LoRA scale."""

    kind: Kind
    sites: int
    parameters: int
    greatest_down: float
    greatest_up: float


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """The LoRA tensor that a single quantization scale fits worst: its greatest magnitude is `ratio` times its RMS value."""

    site: str
    side: str  # down or up
    ratio: float


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """A summary of an adapter file, with all problems. `ranks` maps rank to layer count. `scale` is the (min, max) LoRA scale."""

    path: str
    format: str
    because: str
    sites: int
    ranks: dict[int, int]
    scale: tuple[float, float]
    kinds: tuple[KindRow, ...]
    parameters: int
    int16_bytes: int
    int8_bytes: int
    outlier: Outlier | None
    left_out: OmittedPart | None
    problems: tuple[AdapterProblem, ...]


def inspect_adapter(path: Path, base: BaseSites | None = None, *, unet_only: bool = False) -> Inspection:
    """Summarize an adapter of any format as an Inspection. With `base`, add a problem if an adapter layer does not fit `base`."""
    content = read_adapter(path.name, path, unet_only=unet_only)
    reading = content.reading
    pairs, scales, problems = reading.pairs, reading.scales.values(), list(reading.problems)
    if base is not None and pairs:
        try:
            pairs = fit_to_base(Adapter(name=path.name, pairs=pairs), base).pairs
        except AdapterError as error:
            problems.append(AdapterProblem(message=error.message, hint=error.hint))
    parameters = _parameters(pairs.values())
    outliers = []
    for site, pair in pairs.items():
        for side, tensor in (("down", pair.down), ("up", pair.up)):
            rms = float(tensor.square().mean().sqrt())
            ratio = float(tensor.abs().max()) / rms if rms else 0.0  # 1 if all magnitudes are equal
            outliers.append(Outlier(site=site, side=side, ratio=ratio))
    return Inspection(
        path=str(content.path),
        format=content.format.value,
        because=content.because,
        sites=len(pairs),
        ranks=dict(sorted(Counter(pair.rank for pair in pairs.values()).items())),
        scale=(min(scales, default=1.0), max(scales, default=1.0)),
        kinds=tuple(row for kind in (*SITE_ENDINGS, _OTHER) if (row := _row(kind, pairs))),
        parameters=parameters,
        int16_bytes=2 * parameters,
        int8_bytes=parameters,
        outlier=max((o for o in outliers if math.isfinite(o.ratio)), key=lambda outlier: outlier.ratio, default=None),
        left_out=content.left_out,
        problems=tuple(problems),
    )


def kind_of(site: str, pair: LoraPair) -> Kind:
    """Return the kind of a layer (site), such as attention, by the end of its name. If no known ending matches, return
    `convolution` for tensors with four dimensions, else `other`. Names outside U-Net blocks match no ending.
    """
    flat = site.replace(".", "_")
    for kind, endings in SITE_ENDINGS.items():
        if flat.endswith(tuple(ending.replace(".", "_") for ending in endings)):
            return kind
    return "convolution" if pair.down.ndim == 4 else _OTHER


def _row(kind: Kind, pairs: dict[str, LoraPair]) -> KindRow | None:
    own = [pair for site, pair in pairs.items() if kind_of(site, pair) == kind]
    if not own:
        return None
    return KindRow(
        kind=kind,
        sites=len(own),
        parameters=_parameters(own),
        greatest_down=max(float(pair.down.abs().max()) for pair in own),
        greatest_up=max(float(pair.up.abs().max()) for pair in own),
    )


def _parameters(pairs: Iterable[LoraPair]) -> int:
    return sum(pair.down.numel() + pair.up.numel() for pair in pairs)
