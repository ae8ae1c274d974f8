"""Writer: graphs, tensors, images and JSON -> files in a bundle's folder, and their references."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image
from safetensors.numpy import save_file

from quadbench.artifacts import AdapterFile, BaseDigests, Component, FileRef, Graph, Variant
from quadbench.quad.adapters import Adapter, own_tensors
from quadbench.quad.adapters.lora_profile import adapter_integers
from quadbench.quad.model import initializers
from quadbench.quad.model.graphs import specs
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.tasks.runner import as_feed
from quadbench.results.digests import sha256_of
from quadbench.results.manifest import file_ref, link


class BundleWriter:
    """A writer of files below one folder, to which their paths are relative."""

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
        """Write a graph as `shared/unet.onnx`, `per-graph/<task>/unet.onnx`, ...; `merge.onnx` beside it has the same weights."""
        path = self._path("/".join(filter(None, (variant.value, task, f"{component.value}.onnx"))))
        outside = initializers.file_of(model)
        data = self._weights(variant.value, outside) if outside else None
        onnx.save(initializers.renamed(model, data.sha256) if data else model, path)
        beside = path.with_name("merge.onnx")
        if merge and data:
            onnx.save(initializers.renamed(merge, data.sha256), beside)
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
        """Write an adapter twice, at its own ranks: its integers, and `exact`, for the float graph, under `float/`."""
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
        """Write a safetensors file; every tensor contiguous."""
        path = self._path(name)
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, path, metadata)
        return file_ref(self.folder, path)

    def json(self, name: str, value: Any) -> FileRef:
        """Write a value as JSON."""
        path = self._path(name)
        path.write_text(json.dumps(value, indent=1) + "\n")
        return file_ref(self.folder, path)

    def image(self, name: str, image: Image.Image) -> FileRef:
        """Write an image in the format that the name ends in."""
        path = self._path(name)
        image.save(path)
        return file_ref(self.folder, path)

    def _weights(self, folder: str, source: Path) -> FileRef:
        """Link the file of a large graph's weights under its sha256."""
        sha256 = sha256_of(source)
        path = self._path(f"{folder}/{sha256}")
        link(source, path)
        return FileRef(path=path.relative_to(self.folder).as_posix(), sha256=sha256, size_bytes=path.stat().st_size)

    def _path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path
