"""Profile file: encodings, how they were chosen and how adapters fare under them -> profile.json of a bundle; and back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from quadbench.artifacts import SCHEMA_VERSION, Bundle, Component, Stored
from quadbench.errors import ArtifactError
from quadbench.quad.adapters.lora_profile import LoraProfile, clip_rate, site_fits
from quadbench.quad.distill import Distilled
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.layers import BITS, narrow_layers
from quadbench.quad.quantize.mixed import LayerNoise
from quadbench.quad.sensitivity import Sensitivity
from quadbench.results.digests import digest_of
from quadbench.results.manifest import check_contents
from quadbench.spec import read_json

LORA = "lora"  # the part of the encodings that is the LoRA inputs'; the others are named as their components
Encodings = Mapping[str, Mapping[str, Encoding]]  # by part, then by tensor


def profile_content(
    encodings: Encodings,
    lora: LoraProfile,
    *,
    sensitivity: Sensitivity | None,
    distilled: Mapping[str, Distilled],
    noise: Sequence[LayerNoise],
) -> dict[str, Any]:
    """Return the content of profile.json; `lora` has the adapters as they were before any was trained.

    `sensitivity` is None unless the recipe left the anchor open, and `noise` is empty if it left no layers to choose.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": encodings_digest(encodings),
        "anchor": lora.anchor,
        "chosen_by": "sensitivity" if sensitivity else "recipe",
        "sensitivity": asdict(sensitivity) if sensitivity else None,
        "adapters": [_fit_row(name, lora) for name in lora.adapters],
        "distillation": [_distillation_row(name, result) for name, result in distilled.items()],
        "mixed": _noise_rows(noise, encodings[Component.UNET.value]),
        "encodings": _listed(encodings),
    }


def encodings_digest(encodings: Encodings) -> str:
    """Return the digest by which adapters are bound to the encodings."""
    return digest_of(_listed(encodings))


def lora_encodings_of(bundle: Stored[Bundle]) -> dict[str, Encoding]:
    """Read the encodings of the LoRA inputs from the bundle's profile.

    Raises:
        ArtifactError: the file is not what its manifest says.
    """
    check_contents(bundle, [bundle.artifact.profile])
    listed = read_json(bundle.path(bundle.artifact.profile), fault=ArtifactError)["encodings"][LORA]
    return {name: Encoding(**fields) for name, fields in listed.items()}


def _fit_row(name: str, lora: LoraProfile) -> dict[str, Any]:
    """Describe how an adapter fares under the shared encodings."""
    fits = site_fits(lora.adapters[name], lora.encodings)
    return {"adapter": name, "clip_rate": clip_rate(fits), "sites": [_finite(asdict(fit)) for fit in fits]}


def _distillation_row(name: str, result: Distilled) -> dict[str, Any]:
    """Describe what training brought an adapter."""
    evaluations = [asdict(evaluation) for evaluation in result.evaluations]
    return {"adapter": name, "before_db": result.before_db, "after_db": result.after_db, "evaluations": evaluations}


def _noise_rows(noise: Sequence[LayerNoise], encodings: Mapping[str, Encoding]) -> list[dict[str, Any]] | None:
    """List the measured noise of each layer, and whether it runs in 8 bits; None if nothing was left to choose."""
    narrow = {name for name, encoding in encodings.items() if encoding.bits == BITS}
    chosen = narrow_layers([row.layer for row in noise], narrow)
    return [asdict(row.layer) | {"sqnr_db": row.sqnr_db, "int8": row.layer in chosen} for row in noise] or None


def _listed(encodings: Encodings) -> dict[str, dict[str, dict[str, Any]]]:
    return {part: {name: asdict(encoding) for name, encoding in of_part.items()} for part, of_part in encodings.items()}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """Replace infinity, which JSON lacks: an SQNR without noise is null."""
    return {key: None if value == math.inf else value for key, value in row.items()}
