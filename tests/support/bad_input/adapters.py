"""Adapters: a right PEFT folder, and files of other formats -> cases: wrong tensors, headers, bytes and configurations."""

import json
import random
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from quadbench.artifacts import Bundle, StoredBundle
from quadbench.errors import AdapterError
from quadbench.quad.admit import admit, inspect_candidate
from quadbench.quad.candidate import Candidate
from quadbench.results.manifest import read_manifest
from support.bad_input.case import Case
from support.bad_input.specs import NO_FILES
from support.bad_input.values import brief, changed, named, write_sparse, wrong_values

TENSORS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
# Keys of a LoraConfig that quadbench reads; others are PEFT's own affair.
_READ = (
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "peft_type",
    "use_rslora",
    "use_dora",
    "lora_bias",
    "init_lora_weights",
)
Tensors = dict[str, torch.Tensor]


def adapter_cases(dice: random.Random, right: Path, bundle: StoredBundle) -> Iterator[Case]:
    """Yield cases of adapters that are inspected and, where they are sound, admitted to a copy of the bundle."""
    judge = partial(_judge, bundle)
    yield from _configurations(dice, right, judge)
    yield from _values(right, judge)
    yield from _headers(judge)
    yield from _bytes(dice, right, judge)
    for file in (TENSORS, CONFIG):
        for name, make in NO_FILES.items():
            yield Case(name=f"{file} that is {name}", act=partial(_replaced, right, judge, file, make), names=file)
    key = "base_model.model.conv_in.lora_A.weight"
    act = partial(_replaced, right, judge, TENSORS, partial(write_sparse_weights, name=key))
    yield Case(name="a terabyte of weights", act=act, names=TENSORS)
    for name in ("../../outside/x", "a/b", "A B", "", "x" * 65, "a\0", "-a", "\x1b[31m", "a--b"):
        yield Case(name=f"admitted as {name!r}", act=lambda _folder, name=name: judge(right, name=name), may_pass=name == "")


def _judge(bundle: StoredBundle, source: Path, *, name: str | None = None) -> None:
    """Inspect an adapter and admit it, as the commands do; whatever they find wrong is raised, and nothing may be admitted."""
    stores = sorted(path.name for path in bundle.folder.parent.iterdir())
    inspection, _ = inspect_candidate(source)
    admission = admit(Candidate(source=source, name=name), read_manifest(bundle.folder, Bundle))
    if admission.extended is not None:
        shutil.rmtree(admission.extended.folder)
        if inspection.problems:
            raise AssertionError(f"admitted with problems: {inspection.problems}")
        return
    if sorted(path.name for path in bundle.folder.parent.iterdir()) != stores:
        raise AssertionError("something is left of an adapter that was not admitted")
    if inspection.problems:
        raise AdapterError("; ".join(problem.message for problem in inspection.problems), hint="as inspected")
    raise AdapterError(f"'{source}' was not admitted: {admission.judgement.reason}", hint="as judged")


def _copied(right: Path, folder: Path) -> Path:
    return Path(shutil.copytree(right, folder / "adapter"))


def _replaced(right: Path, judge: Callable[[Path], None], file: str, make: Callable[[Path], object], folder: Path) -> None:
    copied = _copied(right, folder)
    (copied / file).unlink()
    make(copied / file)
    judge(copied)


def _with_config(right: Path, judge: Callable[[Path], None], content: bytes, folder: Path) -> None:
    copied = _copied(right, folder)
    (copied / CONFIG).write_bytes(content)
    judge(copied)


def _configurations(dice: random.Random, right: Path, judge: Callable[[Path], None]) -> Iterator[Case]:
    tree = json.loads((right / CONFIG).read_bytes())
    read = {key: tree.get(key) for key in _READ} | {"rank_pattern": {"to_q": 4}, "alpha_pattern": {"to_q": 4}}
    for place, value, wrong in wrong_values(read, dice, 50):
        text = json.dumps(tree | wrong)
        harmless = place[0] in ("use_rslora", "use_dora", "lora_bias", "init_lora_weights") or "pattern" in str(place[0])
        name = f"configuration with {named(place)} = {brief(value)}"
        yield Case(name=name, act=partial(_with_config, right, judge, text.encode()), may_pass=harmless)
    for number in range(25):
        content = changed(json.dumps(tree).encode(), dice)
        yield Case(name=f"configuration changed {number}", act=partial(_with_config, right, judge, content), may_pass=True)
    for key in ("(a+)+$", "[", "(?P<x", "a{99999}", ".*.*.*b", "\\", "x" * 300, "(a|b)" * 9, "a(?=b)", "$^|", "\x1b", ""):
        content = json.dumps(tree | {"alpha_pattern": {key: 1}}).encode()
        yield Case(name=f"pattern {key[:20]!r}", act=partial(_with_config, right, judge, content), names=CONFIG)
    odd = {
        "an empty file": b"",
        "a list": b"[]",
        "null": b"null",
        "deep": b"[" * 10**5,
        "NaN": b'{"r": NaN}',
        "UTF-16": '{"r": 4}'.encode("utf-16"),
    }
    odd |= {
        "digits": b'{"peft_type": "LORA", "r": ' + b"9" * 5000 + b"}",
        "large": b" " * (2**20 + 1),
        "half": b'{"peft_type": "\\ud800"}',
    }
    for name, content in odd.items():
        yield Case(name=f"configuration: {name}", act=partial(_with_config, right, judge, content))


def _values(right: Path, judge: Callable[[Path], None]) -> Iterator[Case]:
    tensors = load_file(right / TENSORS)
    first = next(iter(tensors))
    wrong: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "NaN": lambda t: t * float("nan"),
        "one NaN": lambda t: t.flatten().index_fill(0, torch.tensor([1]), float("nan")).reshape(t.shape),
        "Inf": lambda t: t + float("inf"),
        "-Inf": lambda t: t - float("inf"),
        "3e38": lambda t: torch.full_like(t, 3e38),
        "1e5": lambda t: torch.full_like(t, 1e5),
        "1e-44": lambda t: torch.full_like(t, 1e-44),
        "another rank": lambda t: t[:-1],
        "no rank": lambda t: t[:0],
        "one dimension": lambda t: t.flatten(),
        "three dimensions": lambda t: t[None],
        "six dimensions": lambda t: t.reshape(1, 1, 1, 1, *t.shape),
        "a scalar": lambda t: t.flatten()[0],
        "more inputs": lambda t: torch.cat([t, t], dim=1),
        **{
            str(kind).removeprefix("torch."): lambda t, kind=kind: (t * 10).to(kind)
            for kind in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool, torch.complex64)
        },
    }
    for name, change in wrong.items():
        yield Case(
            name=f"a tensor of {name}", act=partial(_with_tensors, right, judge, tensors | {first: change(tensors[first])})
        )
        all_of_it = {key: change(tensor) for key, tensor in tensors.items()}
        yield Case(name=f"tensors of {name}", act=partial(_with_tensors, right, judge, all_of_it))
    yield Case(name="zeros", act=partial(_with_tensors, right, judge, {k: torch.zeros_like(t) for k, t in tensors.items()}))
    yield Case(name="half a pair", act=partial(_with_tensors, right, judge, {k: t for k, t in tensors.items() if k != first}))
    yield Case(name="far too large", act=partial(_with_tensors, right, judge, {k: t * 300 for k, t in tensors.items()}))
    for name in ("", "x", "base_model.model..lora_A.weight", "base_model.model.\x1b[31m.lora_A.weight", "a" * 100_000):
        yield Case(
            name=f"a tensor called {name[:30]!r}", act=partial(_with_tensors, right, judge, tensors | {name: torch.ones(1)})
        )
    for method in ("hada_w1_a", "lokr_w1", "oft_blocks", "dora_scale", "lora_mid.weight", "lora_magnitude_vector"):
        name = f"base_model.model.mid_block.attentions.0.{method}"
        yield Case(name=f"a tensor {method}", act=partial(_with_tensors, right, judge, tensors | {name: torch.ones(2, 2)}))
    elsewhere = {key.replace("to_q", "to_elsewhere"): tensor.clone() for key, tensor in tensors.items()}
    yield Case(name="sites that no model has", act=partial(_with_tensors, right, judge, elsewhere))
    many = {f"base_model.model.s{i}.lora_{side}.weight": torch.ones(1, 1) for i in range(3000) for side in "AB"}
    yield Case(name="thousands of sites", act=partial(_with_tensors, right, judge, many))
    for prefix in ("lora_unet_", "unet.", "lora_te_", "text_encoder.", "transformer."):
        odd = {f"{prefix}mid_block.lora_down.weight": torch.ones(2, 2), f"{prefix}mid_block.lora_up.weight": torch.ones(2, 2)}
        yield Case(name=f"a file of {prefix}", act=partial(_as_file, judge, odd, None))
    for text in ("{", "[]", '{"unet.r": "x"}', '{"unet.r": 1e999}', "[" * 10**5, '{"unet.r": 4, "unet.lora_alpha": NaN}'):
        odd = {f"unet.mid_block.attentions.0.proj_in.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
        yield Case(name=f"metadata {text[:20]}", act=partial(_as_file, judge, odd, {"lora_adapter_metadata": text}))


def _with_tensors(right: Path, judge: Callable[[Path], None], tensors: Tensors, folder: Path) -> None:
    copied = _copied(right, folder)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, copied / TENSORS)
    judge(copied)


def _as_file(judge: Callable[[Path], None], tensors: Tensors, metadata: Mapping[str, str] | None, folder: Path) -> None:
    save_file(tensors, folder / "mine.safetensors", metadata=dict(metadata) if metadata else None)
    judge(folder / "mine.safetensors")


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Return the bytes of a file with this header, which may lie."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def write_sparse_weights(path: Path, name: str) -> None:
    """Write a right file with one tensor of a terabyte, which takes no room on the disk."""
    header = {name: {"dtype": "F32", "shape": [2**20, 2**18], "data_offsets": [0, 2**40]}}
    write_sparse(path, safetensors(header), 2**40)


def lying_headers() -> dict[str, bytes]:
    """Return files whose headers do not fit, by what is wrong."""
    name = "lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"
    right = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}

    def one(**words: Any) -> bytes:
        return safetensors({name: right | words}, bytes(16))

    return {
        "nothing": b"",
        "seven bytes": b"\0" * 7,
        "a length alone": struct.pack("<Q", 10),
        "a length of 2**63": safetensors({}, length=2**63),
        "a length of 2**64 - 1": safetensors({}, length=2**64 - 1),
        "a length beyond the file": safetensors({}, length=1000),
        "no tensors": safetensors({}),
        "no JSON": safetensors(b"{" * 100),
        "deep JSON": safetensors(b'{"a":' + b"[" * 10**5),
        "a list": safetensors([]),
        "another type": one(dtype="F33"),
        "a number as type": one(dtype=5),
        "a shape below zero": one(shape=[-2, -2]),
        "a shape that overflows": one(shape=[2**40, 2**40]),
        "a shape of floats": one(shape=[2.5, 2]),
        "a shape that does not fit": one(shape=[3, 3]),
        "offsets beyond the file": one(data_offsets=[0, 10**12]),
        "offsets below zero": one(data_offsets=[-16, 0]),
        "offsets the wrong way": one(data_offsets=[16, 0]),
        "offsets with a gap": safetensors({name: right | {"data_offsets": [8, 24]}}, bytes(24)),
        "two tensors in one place": safetensors({name: right, f"{name}2": right}, bytes(16)),
        "bytes behind": safetensors({name: right}, bytes(20)),
        "a name twice": safetensors(f'{{"{name}": {json.dumps(right)}, "{name}": {json.dumps(right)}}}'.encode(), bytes(16)),
        "metadata that is no text": safetensors({"__metadata__": {"a": 5}, name: right}, bytes(16)),
        "a pickle": b"\x80\x04\x95" + bytes(100),
        "a zip": b"PK\x03\x04" + bytes(100),
        "text": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
    }


def _headers(judge: Callable[[Path], None]) -> Iterator[Case]:
    for name, content in lying_headers().items():
        yield Case(name=f"header: {name}", act=partial(_written, judge, content, "mine.safetensors"), names="mine")
    for ending in (".bin", ".pt", ".ckpt", ".pth"):
        yield Case(name=f"a file {ending}", act=partial(_written, judge, b"\x80\x04", f"mine{ending}"), names="is a pickle")


def _written(judge: Callable[[Path], None], content: bytes, name: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    judge(folder / name)


def _bytes(dice: random.Random, right: Path, judge: Callable[[Path], None]) -> Iterator[Case]:
    content = (right / TENSORS).read_bytes()
    head = 8 + struct.unpack("<Q", content[:8])[0]
    for number in range(40):
        spoilt = changed(content[:head], dice) + content[head:] if number % 2 else changed(content, dice)
        yield Case(name=f"tensors changed {number}", act=partial(_with_file, right, judge, spoilt), may_pass=True)


def _with_file(right: Path, judge: Callable[[Path], None], content: bytes, folder: Path) -> None:
    copied = _copied(right, folder)
    (copied / TENSORS).write_bytes(content)
    judge(copied)
