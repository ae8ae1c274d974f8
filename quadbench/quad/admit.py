"""Admit: a new adapter + a bundle -> a judgement, and the same bundle with one more adapter; base and others stay as they are."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import BaseDigests, Bundle, Caveat, Component, Graph, Stored, Variant
from quadbench.artifacts.parts import file_refs
from quadbench.errors import UserError
from quadbench.quad.adapters import Adapter, LeftOut, load_adapter, sites_of_graph
from quadbench.quad.adapters.inspection import Inspection, inspect_adapter
from quadbench.quad.adapters.judgement import Judgement, gauge, judge
from quadbench.quad.layouts import adapter_digests
from quadbench.quad.prepare import sites_of
from quadbench.quad.profile_file import lora_encodings_of
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.writer import BundleWriter
from quadbench.recipe import GREATEST_WEIGHT, Recipe
from quadbench.results.code import code_digests
from quadbench.results.digests import digest_of
from quadbench.results.layout import folder_name
from quadbench.results.manifest import check_contents, link, publish
from quadbench.spec import LONGEST_NAME, NAME_EXPECTED, is_name


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A judgement of an adapter, at a weight, under a base. `extended` is the bundle with that adapter, once it was added."""

    name: str
    weight: float
    base: BaseDigests
    judgement: Judgement
    extended: Stored[Bundle] | None
    left_out: LeftOut | None = None


def judged(
    source: Path, bundle: Stored[Bundle], *, name: str | None = None, weight: float = 1.0, unet_only: bool = False
) -> Admission:
    """Judge an adapter under the bundle's frozen LoRA encodings; nothing is written. Without a name it has the file's.

    It is judged at `weight`, the greatest that tasks shall give it.

    Raises:
        UserError: no adapter can have that name, or that weight.
        AdapterError: the adapter cannot be read, or has a site that the base lacks, or a larger rank there.
    """
    name = _checked_name(name) if name else _name_of(source)
    encodings = lora_encodings_of(bundle)
    adapter = _load(name, source, bundle.artifact, encodings, unet_only=unet_only).at(_checked_weight(weight))
    return Admission(
        name=name,
        weight=weight,
        base=bundle.artifact.base,
        judgement=judge(adapter, encodings),
        extended=None,
        left_out=adapter.left_out,
    )


def admit(
    source: Path, bundle: Stored[Bundle], *, name: str | None = None, weight: float = 1.0, unet_only: bool = False
) -> Admission:
    """Judge an adapter as `judged` does; if admitted, write it into a new bundle beside the old one.

    The adapter is gauge-aligned in either case, which is exact and only makes the rounding finer. The new bundle's graphs are
    the old files, so nothing is compiled again and a device is sent the adapter alone.

    Raises:
        UserError: no adapter can have that name or that weight, or the bundle has one of that name.
        AdapterError: the adapter cannot be read, or has a site that the base lacks, or a larger rank there.
        ArtifactError: a file of the bundle is not what its manifest says.
    """
    admission = judged(source, bundle, name=name, weight=weight, unet_only=unet_only)
    if admission.name in {adapter.name for adapter in bundle.artifact.adapters}:
        hint = "give the new one another, with --name"
        raise UserError(f"bundle {bundle.artifact.digest[:12]} has an adapter '{admission.name}' already", hint=hint)
    if not admission.judgement.acceptance.is_admitted:
        return admission
    return replace(admission, extended=_extend(bundle, admission, source, unet_only=unet_only))


def inspect(
    source: Path, *, recipe: Recipe | None = None, bundle: Stored[Bundle] | None = None, unet_only: bool = False
) -> tuple[Inspection, Admission | None]:
    """Describe an adapter; with a recipe, check its fit to the foundation model, with a bundle, judge it under the encodings.

    Raises:
        AdapterError: nothing there can be read as an adapter, or it has no place in the bundle.
    """
    inspection = inspect_adapter(source, sites_of(recipe) if recipe else None, unet_only=unet_only)
    return inspection, judged(source, bundle, unet_only=unet_only) if bundle else None


def _load(name: str, source: Path, bundle: Bundle, encodings: dict[str, Encoding], *, unet_only: bool) -> Adapter:
    """Read the adapter, fitted to the bundle's shared graph."""
    return load_adapter(name, source, sites_of_graph(_shapes(bundle, encodings)), unet_only=unet_only)


def _extend(bundle: Stored[Bundle], admission: Admission, source: Path, *, unet_only: bool) -> Stored[Bundle]:
    """Write the bundle with one more adapter beside the old one."""
    check_contents(bundle, file_refs(bundle.artifact))  # the new bundle has the same files under the same digests
    encodings, old = lora_encodings_of(bundle), bundle.artifact
    adapter = _load(admission.name, source, old, encodings, unet_only=unet_only).at(admission.weight)
    named = {"name": admission.name, "weight": admission.weight, "adapter": adapter_digests(source)}
    digest = digest_of({"bundle": old.digest, **named, "code": code_digests(__name__)})

    def fill(temporary: Path) -> Bundle:
        for file in {file.path: file for file in file_refs(old)}.values():
            link(bundle.path(file), temporary / file.path)
        files = BundleWriter(temporary).adapter(gauge(adapter, encodings), adapter, encodings, old.base)
        doubts = {*old.caveats, *((Caveat.UNET_ONLY,) if adapter.left_out else ())}
        caveats = tuple(caveat for caveat in Caveat if caveat in doubts)
        return replace(old, digest=digest, adapters=(*old.adapters, *files), caveats=caveats)

    return publish(bundle.folder.parent / folder_name(digest), fill)


def _shapes(bundle: Bundle, encodings: dict[str, Encoding]) -> dict[str, tuple[int, ...]]:
    return {spec.name: spec.shape for spec in _unet(bundle).inputs if spec.name in encodings}


def _unet(bundle: Bundle) -> Graph:
    return next(g for g in bundle.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise UserError(f"'{name}' is no name for an adapter; expected at most {LONGEST_NAME} characters: {NAME_EXPECTED}")
    return name


def _checked_weight(weight: float) -> float:
    if not 0.0 < weight <= GREATEST_WEIGHT:
        raise UserError(f"{weight:g} is no weight to admit an adapter at; expected more than 0 and at most {GREATEST_WEIGHT:g}")
    return weight


def _name_of(source: Path) -> str:
    """Make a name of the file's: `Pixel_Art v2.safetensors` gives `pixel-art-v2`."""
    stem = source.resolve().name if source.is_dir() else source.stem
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:LONGEST_NAME].rstrip("-")
    if not name:
        raise UserError(f"no adapter's name can be made of '{stem}'", hint="give it one with --name")
    return name
