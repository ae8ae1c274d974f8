"""Scene: plans of the harness over the tiny model's files, and the images that they must give."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save_file

from quadbench.artifacts.pixels import blend_mask, composite
from quadbench.compile.repacking import write_patch
from quadbench.harness.runtime_library import runtime_library
from support.harness_model import (
    FEATURES,
    LATENT,
    PIXELS,
    TOKENS,
    VOCABULARY,
    Array,
    Lora,
    TinyModel,
    as_floats,
    draw_adapter,
    merged,
)

STEPS, ITEMS = 3, 2
MODEL = TinyModel()
ADAPTERS = {"restyle": 100, "remove-object": 200}
KINDS = {"restyle": "image-to-image", "remove-object": "inpaint", "plain": "text-to-image"}
GUIDANCE = {"restyle": 3.0, "remove-object": 1.0, "plain": 1.0}

BASE = {"graph": "1" * 64, "profile": "2" * 64}
MADE_FOR = {f"base_{key}": digest for key, digest in BASE.items()}

Plan = dict[str, Any]


def write_assets(folder: Path) -> None:
    """Graphs, adapters, tables, tensors and images."""
    MODEL.write_parts(folder)
    for dtype in ("int16", "int8", "float32"):
        MODEL.write_unet(folder / f"unet-{dtype}.onnx", lora=dtype)
        for name, seed in ADAPTERS.items():
            save_file(draw_adapter(seed, dtype), folder / f"{name}-{dtype}.safetensors", metadata=MADE_FOR)
    for name, seed in ADAPTERS.items():
        merged(MODEL, as_floats(draw_adapter(seed, "int16"))).write_unet(folder / f"{name}.onnx", lora=None)
    MODEL.write_mergeable(folder)
    (folder / "table.json").write_text(json.dumps(table()))
    save_file(tensors(), folder / "tensors.safetensors")
    for i in range(ITEMS):
        Image.fromarray(pixels(i)).save(folder / f"image-{i}.png")
        Image.fromarray(mask_pixels(i)).save(folder / f"mask-{i}.png")
        blend(i).save(folder / f"blend-{i}.png")


def shared_plan(assets: Path, folder: Path, *, dtype: str = "int16", variant: str = "shared") -> Plan:
    plan = _plan(assets, folder)
    plan["variant"] = variant
    plan["base"] = BASE
    plan["unets"] = {"base": _file(assets / f"unet-{dtype}.onnx")}
    plan["adapters"] = {name: _file(assets / f"{name}-{dtype}.safetensors") for name in ADAPTERS}
    plan["tasks"] = {
        name: _task(assets, name) | {"unet": "base", "adapter": name if name in ADAPTERS else None} for name in KINDS
    }
    plan["sequence"] = [{"task": name, "warmup": 1, "iterations": 3} for name in KINDS]
    return plan


def per_graph_plan(assets: Path, folder: Path) -> Plan:
    plan = _plan(assets, folder)
    plan["variant"] = "per-graph"
    plan["unets"] = {name: _file(assets / f"{name}.onnx") for name in ADAPTERS}
    plan["adapters"] = {}
    plan["tasks"] = {name: _task(assets, name) | {"unet": name, "adapter": None} for name in ADAPTERS}
    plan["sequence"] = [{"task": name, "warmup": 0, "iterations": 1} for name in ADAPTERS]
    return plan


def patched_plan(assets: Path, folder: Path) -> Plan:
    """Return a plan with one U-Net's file for both tasks, and a patch that makes the other's of it."""
    plan = per_graph_plan(assets, folder) | {"variant": "patched"}
    base, wanted = (np.fromfile(assets / f"{name}.onnx", np.uint8) for name in ADAPTERS)
    write_patch(base, wanted, folder / "patch.safetensors")
    plan["unets"] = dict.fromkeys(ADAPTERS, _file(assets / "restyle.onnx"))
    patch = _file(folder / "patch.safetensors")
    plan["patches"] = {"remove-object": patch | {"path": str(folder / "patch.safetensors")}}
    return plan


def merged_at_load_plan(assets: Path, folder: Path) -> Plan:
    plan = shared_plan(assets, folder, variant="merged-at-load")
    plan["unets"] = {"base": _file(assets / "unet-mergeable.onnx")}
    plan["merge"] = {"graph": _file(assets / "merge.onnx"), "weights": _file(assets / "weights.safetensors")}
    return plan


def _plan(assets: Path, folder: Path) -> Plan:
    return {
        "schema_version": 3,
        "root": str(assets),
        "runtime": {"library": str(runtime_library()), "intra_op_threads": 1},
        "components": {
            "encoders": {"text_encoder": _file(assets / "text_encoder.onnx")},
            **{name: _file(assets / f"{name}.onnx") for name in ("vae_encoder", "vae_decoder")},
        },
        "images": str(folder / "images"),
    }


def _task(assets: Path, name: str) -> Plan:
    kind = KINDS[name]
    items = [
        {
            "name": f"{i:03}",
            "image": f"image-{i}.png" if kind != "text-to-image" else None,
            "mask": f"mask-{i}.png" if kind == "inpaint" else None,
            "blend": f"blend-{i}.png" if kind == "inpaint" else None,
            "tokens": {"input_ids": prompt(i)},
            "negative_tokens": {"input_ids": [0] * TOKENS},
        }
        for i in range(ITEMS)
    ]
    return {"kind": kind, "guidance": GUIDANCE[name], "table": "table.json", "tensors": "tensors.safetensors", "items": items}


def _file(path: Path) -> dict[str, str]:
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def table() -> dict[str, Any]:
    """Like LCM's, with every coefficient in use."""
    return {
        "schema_version": 1,
        "scheme": "lcm",
        "timesteps": [999, 499, 99],
        "fit_error": None,
        "start": {"latent": 0.4, "noise": 0.9},
        "steps": [
            _step(input_scale=0.9, x_start=0.0, x=0.8, eps=[-0.6], noise=0.5, known={"latent": 0.7, "noise": 0.6}),
            _step(input_scale=1.0, x_start=0.2, x=0.5, eps=[0.1, -0.7], noise=0.3, known={"latent": 0.9, "noise": 0.3}),
            _step(input_scale=1.1, x_start=0.1, x=0.6, eps=[0.2, 0.1, -0.4], noise=0.0, known={"latent": 1.0, "noise": 0.0}),
        ],
    }


def _step(**coefficients: Any) -> dict[str, Any]:
    return coefficients


def tensors() -> dict[str, Array]:
    random = np.random.default_rng(7)
    noise = {f"noise.{i:03}": random.normal(size=(1 + STEPS, 4, LATENT, LATENT)).astype(np.float32) for i in range(ITEMS)}
    return noise | {"time_features": random.normal(size=(STEPS, FEATURES)).astype(np.float32)}


def prompt(item: int) -> list[int]:
    return [(3 + 5 * item + i) % VOCABULARY for i in range(TOKENS)]


def pixels(item: int) -> NDArray[np.uint8]:
    return np.random.default_rng(50 + item).integers(0, 256, (PIXELS, PIXELS, 3), np.uint8)


def mask_pixels(item: int) -> NDArray[np.uint8]:
    return np.random.default_rng(60 + item).integers(0, 256, (PIXELS, PIXELS), np.uint8)


def blend(item: int) -> Image.Image:
    """The decoder's share in each pixel, from all to nothing: mask_pixels would leave it everything."""
    alone = np.zeros((PIXELS, PIXELS), np.bool_)
    alone[4:9, 5 + item : 10] = True
    return blend_mask(alone)


def painted(task: str, item: int, lora: Lora | None, *, is_composited: bool = True) -> Array:
    """The image in 0..255 by docs/formats.md, "Sampler tables", before rounding; a composited one after it."""
    kind, guidance, noise = KINDS[task], GUIDANCE[task], tensors()[f"noise.{item:03}"]
    features, context, negative = tensors()["time_features"], MODEL.text(prompt(item)), MODEL.text([0] * TOKENS)
    z = np.zeros((1, 4, LATENT, LATENT), np.float32)
    if kind != "text-to-image":
        z = MODEL.encode(pixels(item).transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1)
    mask = (mask_pixels(item)[::2, ::2] >= 128).astype(np.float32)
    rules = table()
    x = x_start = rules["start"]["latent"] * z + rules["start"]["noise"] * noise[0]
    seen: list[Array] = []
    for i, step in enumerate(rules["steps"]):
        scaled = step["input_scale"] * x
        eps = MODEL.eps(scaled, features[i : i + 1], context, lora)
        if guidance != 1.0:
            unconditional = MODEL.eps(scaled, features[i : i + 1], negative, lora)
            eps = unconditional + guidance * (eps - unconditional)
        seen.append(eps)
        weighted = sum(weight * past for weight, past in zip(step["eps"], seen, strict=True))
        x = step["x_start"] * x_start + step["x"] * x + weighted + step["noise"] * noise[i + 1]
        if kind == "inpaint":
            x = mask * x + (1 - mask) * (step["known"]["latent"] * z + step["known"]["noise"] * noise[0])
    decoded: Array = (np.clip((MODEL.decode(x) + 1) / 2, 0, 1) * 255)[0].transpose(1, 2, 0)
    if kind != "inpaint" or not is_composited:
        return decoded
    return composite(np.rint(decoded).astype(np.uint8), pixels(item), blend(item)).astype(np.float32)


def assert_same_image(path: Path, expected: Array) -> None:
    """Equal after rounding, but where NumPy's own value is within 0.01 of the middle between two integers."""
    found = np.asarray(Image.open(path)).astype(np.float32)
    assert np.ptp(found) > 0
    assert np.abs(found - expected).max() <= 0.51
