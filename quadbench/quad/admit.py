"""Admit: a new adapter + a bundle -> a verdict, and the same bundle with one more adapter; base, profile and the others stay."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

from quadbench.artifacts import BaseDigests, Bundle, Component, Graph, Variant
from quadbench.errors import UserError
from quadbench.manifest import digest_of, file_refs, link, publish
from quadbench.quad.adapters import Adapter, base_of_graph, load_adapter
from quadbench.quad.cache import bundle_folder
from quadbench.quad.encodings import Encoding
from quadbench.quad.sources import adapter_digests
from quadbench.quad.verdict import Judgement, gauge, judge
from quadbench.quad.writer import BundleWriter
from quadbench.yaml_spec import NAME_EXPECTED, NAME_PATTERN

_LONGEST_NAME = 64


@dataclass(frozen=True, kw_only=True)
class Extended:
    """A bundle with one more adapter, and its folder."""

    bundle: Bundle
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What an adapter is to a base; `extended` is there once it was added."""

    name: str
    base: BaseDigests
    judgement: Judgement
    extended: Extended | None


def judged(source: Path, bundle: Bundle, folder: Path, *, name: str | None = None) -> Admission:
    """Judge an adapter under the bundle's frozen LoRA encodings; nothing is written. Without a name it takes the file's.

    Raises:
        UserError: the name can be none.
        AdapterError: the adapter cannot be read, or has a site that the base lacks, or a larger rank there.
    """
    name = _checked_name(name) if name else _name_of(source)
    encodings = lora_encodings_of(bundle, folder)
    judgement = judge(_load(name, source, bundle, encodings), encodings)
    return Admission(name=name, base=bundle.base, judgement=judgement, extended=None)


def admit(source: Path, bundle: Bundle, folder: Path, *, name: str | None = None) -> Admission:
    """Judge an adapter as `judged` does; if admitted, write it into a new bundle beside the old one.

    It is gauge-aligned in either case, which is exact and only makes the rounding finer. The new bundle's graphs are the old
    files, so nothing is compiled again and a device is sent the adapter alone.

    Raises:
        UserError: the bundle has an adapter of that name; and what `judged` raises.
    """
    admission = judged(source, bundle, folder, name=name)
    if admission.name in {adapter.name for adapter in bundle.adapters}:
        hint = "give the new one another, with --name"
        raise UserError(f"bundle {bundle.digest[:12]} has an adapter '{admission.name}' already", hint=hint)
    if not admission.judgement.verdict.is_admitted:
        return admission
    return replace(admission, extended=_extend(bundle, folder, admission.name, source))


def lora_encodings_of(bundle: Bundle, folder: Path) -> dict[str, Encoding]:
    """The LoRA inputs' encodings in the bundle's profile."""
    listed = json.loads((folder / bundle.profile.path).read_text())["encodings"]["lora"]
    return {name: Encoding(**fields) for name, fields in listed.items()}


def _load(name: str, source: Path, bundle: Bundle, encodings: dict[str, Encoding]) -> Adapter:
    """The adapter, fitted to the bundle's shared graph."""
    return load_adapter(name, source, base_of_graph(_shapes(bundle, encodings)))


def _extend(bundle: Bundle, folder: Path, name: str, source: Path) -> Extended:
    encodings = lora_encodings_of(bundle, folder)
    adapter = _load(name, source, bundle, encodings)
    digest = digest_of({"bundle": bundle.digest, "name": name, "adapter": adapter_digests(source)})
    target = bundle_folder(digest, folder.parent)

    def make(temporary: Path) -> Bundle:
        for file in {file.path: file for file in file_refs(bundle)}.values():
            link(folder / file.path, temporary / file.path)
        shapes = _shapes(bundle, encodings)
        files = BundleWriter(temporary).adapter(gauge(adapter, encodings), adapter, shapes, encodings, bundle.base)
        return replace(bundle, digest=digest, adapters=(*bundle.adapters, *files))

    return Extended(bundle=publish(target, make), folder=target)


def _shapes(bundle: Bundle, encodings: dict[str, Encoding]) -> dict[str, tuple[int, ...]]:
    return {spec.name: spec.shape for spec in _unet(bundle).inputs if spec.name in encodings}


def _unet(bundle: Bundle) -> Graph:
    return next(g for g in bundle.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)


def _checked_name(name: str) -> str:
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > _LONGEST_NAME:
        raise UserError(f"'{name}' is no name for an adapter; expected at most {_LONGEST_NAME} characters: {NAME_EXPECTED}")
    return name


def _name_of(source: Path) -> str:
    """`Pixel_Art v2.safetensors` -> `pixel-art-v2`."""
    stem = source.resolve().name if source.is_dir() else source.stem
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:_LONGEST_NAME].rstrip("-")
    if not name:
        raise UserError(f"no adapter's name can be made of '{stem}'", hint="give it one with --name")
    return name
