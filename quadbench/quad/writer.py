"""Writer: writing a bundle's graphs, tensors, images and JSON files, including profile.json with the encodings."""

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image
from safetensors.numpy import save_file

from quadbench.artifacts import SCHEMA_VERSION, Component, FileRef, Graph, StoredBundle, Variant
from quadbench.artifacts.bundle import AdapterFile, BaseDigests
from quadbench.errors import ArtifactError
from quadbench.quad.adapters.adapter import Adapter, own_tensors
from quadbench.quad.adapters.lora_profile import LoraProfile, adapter_integers, clip_rate, site_fits
from quadbench.quad.distill import DistilledAdapter
from quadbench.quad.model import initializers
from quadbench.quad.model.float_graphs import specs
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.quantizer import BITS, LayerNoise, narrow_layers
from quadbench.quad.runner import as_feed
from quadbench.quad.sensitivity import Sensitivity
from quadbench.results.digests import digest_of, sha256_of
from quadbench.results.manifest import check_contents, file_ref, link_file
from quadbench.spec import read_json

LORA = "lora"  # the key of the LoRA inputs' encodings; other keys are component names
Encodings = Mapping[str, Mapping[str, Encoding]]  # by part, then by tensor


class BundleWriter:
    """A writer of a bundle's files below one folder. Its methods return file references relative to that folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def graph(
        self,
        model: onnx.ModelProto,
        variant: Variant,
        component: Component,
        *,
        task: str | None = None,
        lora: Mapping[str, Encoding] | None = None,
        merge: onnx.ModelProto | None = None,
    ) -> Graph:
        """Write an ONNX graph and, if given, `merge`: a graph that adds an adapter to the first one's weights. Return a Graph."""
        path = self._path("/".join(filter(None, (variant.value, task, f"{component.value}.onnx"))))
        outside = initializers.file_of(model)
        data = None
        if outside:  # external weights of a large graph lie under their SHA-256
            sha256 = sha256_of(outside)
            place = self._path(f"{variant.value}/{sha256}")
            if outside.stat().st_nlink > 1:  # a part of builds; onnx refuses a file of weights with several hard links
                shutil.copyfile(outside, place)
            else:
                link_file(outside, place)
            name = place.relative_to(self.folder).as_posix()
            data = FileRef(path=name, sha256=sha256, size_bytes=place.stat().st_size)
        onnx.save(initializers.with_weights_file(model, data.sha256) if data else model, path)
        beside = path.with_name("merge.onnx")
        if merge and data:
            onnx.save(initializers.with_weights_file(merge, data.sha256), beside)
        return Graph(
            variant=variant,
            component=component,
            task=task,
            file=file_ref(self.folder, path),
            data=data,
            merge=file_ref(self.folder, beside) if merge else None,
            inputs=specs(model.graph.input, lora),
            outputs=specs(model.graph.output),
        )

    def adapter(
        self, adapter: Adapter, exact: Adapter, encodings: Mapping[str, Encoding], base: BaseDigests
    ) -> tuple[AdapterFile, AdapterFile]:
        """Write an adapter twice: `adapter` as integers, then the original `exact` as floats. Return an AdapterFile for each."""
        metadata = {"base_graph": base.graph, "base_profile": base.profile}
        integers, floats = adapter_integers(own_tensors(adapter), encodings), as_feed(own_tensors(exact))
        files = (
            (Variant.SHARED, self.tensors(f"adapters/{adapter.name}.safetensors", integers, metadata)),
            (Variant.FLOAT, self.tensors(f"adapters/float/{adapter.name}.safetensors", floats, metadata)),
        )
        rank, sites, weight = adapter.rank, len(adapter.pairs), adapter.weight
        first, second = (
            AdapterFile(name=adapter.name, variant=v, file=file, rank=rank, sites=sites, weight=weight) for v, file in files
        )
        return first, second

    def tensors(self, name: str, tensors: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> FileRef:
        """Write a safetensors file of arrays by tensor name, with optional text metadata. Return a FileRef to the file."""
        path = self._path(name)
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, metadata)
        return file_ref(self.folder, path)

    def json(self, name: str, value: Any) -> FileRef:
        path = self._path(name)
        path.write_text(json.dumps(value, indent=1) + "\n")
        return file_ref(self.folder, path)

    def image(self, name: str, image: Image.Image) -> FileRef:
        """Write an image file in the format that the suffix of its name stands for, such as PNG."""
        path = self._path(name)
        image.save(path)
        return file_ref(self.folder, path)

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def profile_content(
    encodings: Encodings,
    lora: LoraProfile,
    *,
    sensitivity: Sensitivity | None,
    distilled: Mapping[str, DistilledAdapter],
    noise: Sequence[LayerNoise],
) -> dict[str, Any]:
    """Return the content of profile.json as a dict. `lora` holds all adapters as they were before distillation. `distilled` maps
    adapter names to distillation results. `sensitivity` is None if unmeasured, `noise` empty if no layers were chosen for 8 bits.
    """
    narrow = {name for name, encoding in encodings[Component.UNET.value].items() if encoding.bits == BITS}
    chosen = narrow_layers([row.layer for row in noise], narrow)
    mixed = [asdict(row.layer) | {"sqnr_db": row.sqnr_db, "int8": row.layer in chosen} for row in noise]
    return {
        "schema_version": SCHEMA_VERSION,
        "digest": encodings_digest(encodings),
        "anchor": lora.anchor,
        "chosen_by": "sensitivity" if sensitivity else "recipe",
        "sensitivity": asdict(sensitivity) if sensitivity else None,
        "adapters": [_fit_row(name, lora) for name in lora.adapters],
        "distillation": [
            {
                "adapter": name,
                "before_db": result.before_db,
                "after_db": result.after_db,
                "evaluations": [asdict(evaluation) for evaluation in result.evaluations],
            }
            for name, result in distilled.items()
        ],
        "mixed": mixed or None,
        "encodings": _listed(encodings),
    }


def encodings_digest(encodings: Encodings) -> str:
    """Return the SHA-256 of a bundle's encodings. Adapter files store it to name the encodings that decode their integers."""
    return digest_of(_listed(encodings))


def lora_encodings_of(bundle: StoredBundle) -> dict[str, Encoding]:
    """Read a bundle's profile.json, and return the encodings of the LoRA inputs by input name."""
    check_contents(bundle, [bundle.artifact.profile])
    listed = read_json(bundle.path(bundle.artifact.profile), fault=ArtifactError)["encodings"][LORA]
    return {name: Encoding(**fields) for name, fields in listed.items()}


def _fit_row(name: str, lora: LoraProfile) -> dict[str, Any]:
    """Return an adapter's entry in profile.json: its name, fraction of clipped weights and quantization loss per layer."""
    fits = site_fits(lora.adapters[name], lora.encodings)
    rows = [{key: None if value == math.inf else value for key, value in asdict(fit).items()} for fit in fits]  # JSON has no inf
    return {"adapter": name, "clip_rate": clip_rate(fits), "sites": rows}


def _listed(encodings: Encodings) -> dict[str, dict[str, dict[str, Any]]]:
    return {part: {name: asdict(encoding) for name, encoding in of_part.items()} for part, of_part in encodings.items()}
