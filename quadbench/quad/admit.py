"""Admit: a new adapter + a bundle -> the same bundle with one more adapter; base, profile and the others stay as they are."""

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from quadbench.artifacts import Bundle, Component, Graph, Variant
from quadbench.errors import UserError
from quadbench.manifest import digest_of, file_refs, publish
from quadbench.quad.adapters import base_of_graph, load_adapter
from quadbench.quad.cache import bundle_folder
from quadbench.quad.encodings import Encoding
from quadbench.quad.profile import aligned, clip_rate, lora_sqnr_db
from quadbench.quad.sources import adapter_digests
from quadbench.quad.writer import BundleWriter


@dataclass(frozen=True, kw_only=True)
class Admission:
    """The extended bundle and what the frozen profile costs the adapter: share of clipped weights, and SQNR of up*down in dB."""

    bundle: Bundle
    folder: Path
    clip_rate: float
    worst_site: str
    worst_sqnr_db: float
    mean_sqnr_db: float


def admit(name: str, source: Path, bundle: Bundle, folder: Path) -> Admission:
    """Quantize a PEFT adapter under the bundle's frozen LoRA encodings, gauge-aligned, into a new bundle beside the old one.

    The new bundle's graphs are the old files, so nothing is compiled again and a device is sent the adapter alone.

    Raises:
        UserError: the bundle has an adapter of that name.
        AdapterError: the adapter has a site that the base lacks, or a larger rank there.
    """
    if name in {adapter.name for adapter in bundle.adapters}:
        raise UserError(f"bundle {bundle.digest[:12]} has an adapter '{name}' already", hint="give the new one another name")
    encodings = _lora_encodings(bundle, folder)
    shapes = {spec.name: spec.shape for spec in _unet(bundle).inputs if spec.name in encodings}
    adapter = load_adapter(name, source, base_of_graph(shapes))
    gauged = aligned(adapter, {key: encoding.scale * encoding.limit for key, encoding in encodings.items()})
    digest = digest_of({"bundle": bundle.digest, "name": name, "adapter": adapter_digests(source)})
    target = bundle_folder(digest, folder.parent)

    def make(temporary: Path) -> Bundle:
        for file in {file.path: file for file in file_refs(bundle)}.values():
            _link(folder / file.path, temporary / file.path)
        files = BundleWriter(temporary).adapter(gauged, adapter, shapes, encodings, bundle.base)
        return replace(bundle, digest=digest, adapters=(*bundle.adapters, *files))

    sqnr_db = lora_sqnr_db(gauged, encodings)
    worst = min(sqnr_db, key=lambda site: sqnr_db[site])
    return Admission(
        bundle=publish(target, make),
        folder=target,
        clip_rate=clip_rate(gauged, encodings),
        worst_site=worst,
        worst_sqnr_db=sqnr_db[worst],
        mean_sqnr_db=float(np.mean(list(sqnr_db.values()))),
    )


def _unet(bundle: Bundle) -> Graph:
    return next(g for g in bundle.graphs if g.variant is Variant.SHARED and g.component is Component.UNET)


def _lora_encodings(bundle: Bundle, folder: Path) -> dict[str, Encoding]:
    listed = json.loads((folder / bundle.profile.path).read_text())["encodings"]["lora"]
    return {name: Encoding(**fields) for name, fields in listed.items()}


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no hard links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
