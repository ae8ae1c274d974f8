"""Readers of what comes from outside, given anything: each returns what it reads or refuses it with its own error, and no other.

`make fuzz` draws far more; here each test draws a few. With FUZZ_EXAMPLES=N each test draws N, another N each time.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from support.bad_input.adapters import safetensors
from support.tiny_model import RECIPE, tiny_unet
from test_event_log import expected, header, samples
from test_manifest import _make

from quadbench.artifacts import CompiledBundle
from quadbench.artifacts.launch_values import value_fault
from quadbench.artifacts.safe_text import check_relative_path, is_plain, one_line
from quadbench.devices.android_reports import parse_device_list, parse_getprop
from quadbench.errors import AdapterError, ArtifactError, SpecError, UserError
from quadbench.harness.event_log import EventLog
from quadbench.harness.events import read_event
from quadbench.measure.gate import parse_state, state_texts
from quadbench.quad.adapters.convert import convert
from quadbench.quad.adapters.inspection import inspect_adapter
from quadbench.quad.adapters.loading import read_tensor_file, sites_of_unet
from quadbench.quad.adapters.peft import SitePattern, adapter_config
from quadbench.recipe.recipe import load_recipe
from quadbench.results.manifest import MANIFEST, publish, read_manifest
from quadbench.spec.yaml_document import read_document, read_value

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
fuzzed = settings(
    max_examples=EXAMPLES or 30,
    derandomize=not EXAMPLES,  # the suite draws the same each time
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

BASE = sites_of_unet(tiny_unet())
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
)
YAML_WORDS = st.sampled_from(
    [
        *("- ", ": ", "? ", "\n", "  ", "&a ", "*a", "!!", "!!int ", "!!python/name:os ", "[", "]", "{", "}", ","),
        *("|\n", ">-\n", "'", '"', "#", "---\n", "...\n", "%YAML 1.1\n", "<<", "0x1f", "1e9", ".nan", "1:30"),
        *("2026-01-01", "\t", "\0", "\ufeff", "\\u", "~", "null", "yes"),
    ]
)
YAML_TEXTS = st.lists(YAML_WORDS | st.text(max_size=6), max_size=40).map("".join)
SITE_PARTS = st.sampled_from(["to_q", "to_k", "attn1", "down_blocks", "0", "1", "a", "-", "_"])
SITES = st.lists(SITE_PARTS, min_size=1, max_size=6).map(".".join)
PIECES = st.sampled_from(
    ["to_q", "a", ".", "\\.", "\\d", ".*", "^", "$", "|", "(", ")", "(a|b)", "attn1.", "0", "+", "?", "[", "x{2}", "\\"]
)


@contextmanager
def refused_by_name(kind: type[Exception], name: str) -> Iterator[None]:
    """Let what is inside succeed, or fail with an error of this kind that has the name in its message."""
    try:
        yield
    except kind as error:
        if name not in str(error):
            raise AssertionError(f"{name!r} is not named in {error}") from error


def _places(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if not isinstance(tree, dict | list):
        return [at]
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return [at, *(place for key, value in entries for place in _places(value, (*at, key)))]


def _changed(tree: Any, place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    copied[place[0]] = _changed(tree[place[0]], place[1:], value)
    return copied


@fuzzed
@given(text=YAML_TEXTS | st.binary(max_size=200).map(lambda data: data.decode("latin-1")))
def test_any_text_is_a_document_or_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with refused_by_name(SpecError, str(path)):
        assert isinstance(read_document(path).data, dict)


@fuzzed
@given(text=st.text(max_size=30) | YAML_TEXTS)
def test_any_text_is_a_value_or_refused(text: str) -> None:
    with refused_by_name(UserError, "is not a value"):
        assert isinstance(read_value(text), str | int | float | bool | None)


@fuzzed
@given(data=st.data())
def test_a_recipe_with_any_value_anywhere_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    tree = yaml.safe_load(RECIPE)
    for _ in range(data.draw(st.integers(1, 3))):
        tree = _changed(tree, data.draw(st.sampled_from(_places(tree))), data.draw(TREES))
    path = tmp_path / "recipe.yaml"
    path.write_bytes(yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
    with refused_by_name(SpecError, str(path)):
        load_recipe(path)


HEADERS = st.dictionaries(
    st.sampled_from(["lora_unet_a.lora_down.weight", "unet.a.lora_A.weight", "__metadata__", "x"]) | st.text(max_size=8),
    TREES
    | st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "BOOL", "F8_E4M3", "U64", "X"]),
            "shape": st.lists(st.integers(-1, 2**40) | st.integers(0, 3), max_size=5),
            "data_offsets": st.lists(st.integers(-1, 2**62) | st.integers(0, 64), max_size=3),
        }
    ),
    max_size=4,
)


@fuzzed
@given(header=HEADERS, data=st.binary(max_size=64), length=st.none() | st.integers(0, 2**64 - 1))
def test_any_safetensors_file_is_read_or_refused(header: Any, data: bytes, length: int | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(safetensors(json.dumps(header).encode(), data, length=length))
    with refused_by_name(AdapterError, str(path)):
        assert read_tensor_file("a", path).tensors


KINDS = (torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.int64, torch.bool, torch.complex64)
TENSORS = st.builds(
    lambda shape, kind, value: torch.full(shape, value).to(kind),
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(KINDS),
    st.floats(width=32) | st.sampled_from([0.0, 1e-44, 3e38, float("nan")]),
)
TENSOR_ENDS = ("A.weight", "B.weight", "down.weight", "up.weight", "mid.weight", "magnitude_vector")
TENSOR_ENDS = (*(f".lora_{end}" for end in TENSOR_ENDS), ".alpha", ".lora.up.weight", ".dora_scale", "")
TENSOR_NAMES = st.builds(
    lambda start, site, end: f"{start}{site}{end}",
    st.sampled_from(["lora_unet_", "unet.", "base_model.model.", "text_encoder.", "down_blocks.", ""]),
    SITES | st.text(max_size=6),
    st.sampled_from(TENSOR_ENDS),
)


@fuzzed
@given(
    tensors=st.dictionaries(TENSOR_NAMES, TENSORS, min_size=1, max_size=6),
    metadata=st.none() | TREES.map(lambda tree: json.dumps({"unet.r": tree})) | st.text(max_size=20),
)
def test_any_tensors_are_inspected_or_refused(tensors: dict[str, torch.Tensor], metadata: str | None, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    names = {name.encode(errors="replace").decode(): tensor for name, tensor in tensors.items()}
    described = None if metadata is None else {"lora_adapter_metadata": metadata.encode(errors="replace").decode()}
    path.write_bytes(save(names, metadata=described))
    with refused_by_name(AdapterError, "adapter"):
        inspection = inspect_adapter(path)
        assert inspection.problems or inspection.sites


PARTS = (*(f"hada_w{i}_{side}" for i in "12" for side in "ab"), "hada_t1", "hada_t2", "lokr_w1", "lokr_w2", "lokr_t2")
PARTS = (*PARTS, *(f"lokr_w{i}_{side}" for i in "12" for side in "ab"), "diff", "diff_b", "alpha")
SIDES = st.sampled_from([1, 2, 4, 8, 16])
DIFFERENCES = st.dictionaries(
    st.tuples(st.sampled_from(["mid_block.attentions.0.proj_in", "conv_in", "x"]), st.sampled_from(PARTS)),
    st.lists(SIDES, max_size=4).map(torch.ones) | TENSORS,
    min_size=1,
    max_size=7,
)


@fuzzed
@given(parts=DIFFERENCES, kind=st.sampled_from(["LOHA", "LOKR", "LORA", ""]), rank=st.integers(1, 4))
def test_any_differences_are_converted_or_refused(
    parts: dict[tuple[str, str], torch.Tensor], kind: str, rank: int, tmp_path: Path
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir(exist_ok=True)
    config = {"peft_type": kind, "r": rank, "alpha": 1, "lora_alpha": 1}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    named = {f"base_model.model.{site}.{part}" if kind else f"lora_unet_{site.replace('.', '_')}.{part}": parts[site, part]
             for site, part in parts}  # fmt: skip
    path = folder / "adapter_model.safetensors"
    path.write_bytes(save(named))
    with refused_by_name(AdapterError, "adapter"):
        assert convert(folder if kind else path, BASE, rank=2).error <= 1


@fuzzed
@given(
    values=st.dictionaries(
        st.sampled_from(["r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "x"]), TREES | st.integers(1, 9)
    )
)
def test_any_lora_config_is_read_or_refused(values: dict[str, Any]) -> None:
    try:
        config = adapter_config(values)
    except ValueError:
        return
    assert config.rank == values["r"]
    assert isinstance(config.scale("a.to_q", 4), float)


@fuzzed
@given(key=st.lists(PIECES, min_size=1, max_size=6).map("".join), site=SITES)
def test_a_pattern_means_the_sites_that_it_means_to_peft(key: str, site: str) -> None:
    try:
        pattern = SitePattern(key)
    except ValueError:
        return
    assert pattern.matches(site) == (re.match(rf"(.*\.)?({key})$", site) is not None)


@fuzzed
@given(data=st.data())
def test_any_manifest_is_read_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    if not folder.exists():
        publish(folder, _make)
    right = (folder / MANIFEST).read_bytes()
    tree = json.loads(right)
    changed = _changed(tree, data.draw(st.sampled_from(_places(tree))), data.draw(TREES))
    try:
        (folder / MANIFEST).write_text(json.dumps(changed), encoding="utf-8", errors="surrogatepass")
        with pytest.raises(ArtifactError, match="made"):  # also what is as it was: other bytes are another manifest
            read_manifest(folder, CompiledBundle)
    finally:
        (folder / MANIFEST).write_bytes(right)


@fuzzed
@given(
    path=st.text(max_size=30) | st.lists(st.sampled_from(["..", "a", "/", ".", "~", "\\", "\0", " "]), max_size=8).map("".join)
)
def test_a_path_that_is_taken_stays_below_its_folder(path: str, tmp_path: Path) -> None:
    try:
        check_relative_path(path)
    except ValueError:
        return
    assert (tmp_path / path).resolve().is_relative_to(tmp_path.resolve())
    assert (tmp_path / path) != tmp_path


EVENT_KEYS = st.sampled_from(
    ["event", "metric", "value", "task", "iteration", "step", "item", "labels", "path", "sha256", "status", "samples"]
)
EVENTS = st.dictionaries(
    EVENT_KEYS, TREES | st.sampled_from(["sample", "image", "footer", "header", "error", "unet_ns", "restyle", "000"])
)


@fuzzed
@given(line=EVENTS.map(json.dumps) | st.text(max_size=60))
def test_any_line_is_an_event_or_refused(line: str) -> None:
    with refused_by_name(ValueError, "is not an event"):
        assert read_event(line).event in ("header", "sample", "image", "error", "footer")


@fuzzed
@given(data=st.data())
def test_what_is_kept_of_any_launch_is_plausible(data: st.DataObject) -> None:
    lines = [header(), *samples(), {"event": "footer", "status": "OK", "samples": len(samples()), "wall_ns": 9_000_000_000}]
    texts = [json.dumps(line) for line in lines]
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(lines) - 1))
        key = data.draw(st.sampled_from(sorted(lines[place])))
        texts[place] = data.draw(
            st.just(json.dumps(lines[place] | {key: data.draw(TREES)})) | EVENTS.map(json.dumps) | st.text(max_size=20)
        )
    heard = EventLog(expected=expected())
    for text in texts:
        heard.feed(text)
    reason = heard.output_fault("0" * 64, 10.0)
    assert reason is None or is_plain(one_line(reason))
    assert all(value_fault(sample.metric, sample.value) is None for sample in heard.samples)


REPORTS = st.lists(
    st.sampled_from(
        [
            *(f"@@quadbench {part}\n" for part in ("thermal", "battery", "clocks", "memory", "load", "uptime", "cores")),
            *(
                "  level: ",
                "Temperature{mValue=",
                "mName=",
                "9" * 400,
                "policy0 1 2 3\n",
                "MemTotal: ",
                " kB\n",
                "Thermal Status: ",
            ),
            *("\n", "NaN", "-1", "1e999", "[ro.soc.model]: [", "]\n"),
        ]
    )
    | st.text(max_size=8),
    max_size=30,
).map("".join)


@fuzzed
@given(text=REPORTS)
def test_anything_that_a_device_reports_is_read(text: str) -> None:
    assert all(is_plain(value) for value in state_texts(parse_state(text), "before").values())
    assert all(isinstance(value, str) for value in parse_getprop(text).values())
    parse_device_list(text)
