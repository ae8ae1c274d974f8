"""Adapters that ask for a place in a bundle: the judgement, and what is added. Pushing stands in test_pipeline."""

import json
import re
import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open  # noqa: E402
from safetensors.numpy import load_file  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import Known, draw_pairs, kohya_tensors, write_kohya  # noqa: E402
from support.sentences import reads, says  # noqa: E402
from support.tiny_model import tiny_unet  # noqa: E402

from quadbench.artifacts import Bundle, Caveat, Component, Graph, TensorSpec, Variant  # noqa: E402
from quadbench.artifacts.bundle import BaseDigests  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.quad.adapters.loading import load_adapter, sites_of_unet  # noqa: E402
from quadbench.quad.adapters.lora_profile import lora_encodings, lora_ranges  # noqa: E402
from quadbench.quad.model.lora import input_names  # noqa: E402
from quadbench.results.digests import digest_of  # noqa: E402
from quadbench.results.manifest import file_ref, publish, read_manifest  # noqa: E402

KNOWN = draw_pairs(tiny_unet(), ("attn1.to_q", "proj_in", "conv1"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Write a bundle for one adapter, as far as admission looks: graph inputs, profile and digests; the graph is never run."""
    adapter = load_adapter("old", write_kohya(tmp_path / "old.safetensors", KNOWN), sites_of_unet(tiny_unet()))
    encodings = lora_encodings(lora_ranges([adapter]), headroom=1.2, dtype="int16")
    listed = {"lora": {name: asdict(encoding) for name, encoding in encodings.items()}}
    inputs = [
        TensorSpec(name=name, shape=tuple(tensor.shape), dtype="int16", scale=encodings[name].scale)
        for site, pair in adapter.pairs.items()
        for name, tensor in zip(input_names(site), (pair.down, pair.up), strict=True)
    ]

    def fill(folder: Path) -> Bundle:
        (folder / "profile.json").write_text(json.dumps({"digest": digest_of(listed), "encodings": listed}))
        (folder / "unet.onnx").write_bytes(b"never run")
        graph = file_ref(folder, folder / "unet.onnx")
        return Bundle(
            digest="b0" * 32,
            recipe_name="tiny",
            recipe_digest="c1" * 32,
            precision="w8a16",
            tool_versions={},
            graphs=(Graph(variant=Variant.SHARED, component=Component.UNET, file=graph, inputs=tuple(inputs), outputs=()),),
            adapters=(),
            tasks=(),
            profile=file_ref(folder, folder / "profile.json"),
            base=BaseDigests(graph=graph.sha256, profile=digest_of(listed)),
        )

    folder = tmp_path / "bundles" / ("b0" * 8)
    publish(folder, fill)
    return folder


def write_new(path: Path, *, down: float = 1.0, up: float = 1.0) -> Path:
    """Write the bundle's adapter with its factors multiplied."""
    return write_kohya(path, {site: Known(down=k.down * down, up=k.up * up, alpha=k.alpha) for site, k in KNOWN.items()})


def admit(capsys: pytest.CaptureFixture[str], file: Path, bundle: Path, *options: str) -> dict[str, object]:
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle), "--json", *options]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def integers_of(answer: dict[str, object]) -> dict[str, object]:
    return dict(load_file(Path(str(answer["bundle"])) / f"adapters/{answer['name']}.safetensors"))


def test_an_admitted_adapter_is_in_the_new_bundle_and_bound_to_the_base(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = admit(capsys, write_new(tmp_path / "Pixel_Art v2.safetensors"), bundle)
    assert (answer["name"], answer["verdict"]) == ("pixel-art-v2", "admitted")
    old, stored = read_manifest(bundle, Bundle).artifact, read_manifest(Path(str(answer["bundle"])), Bundle)
    extended = stored.artifact
    assert (extended.graphs, extended.profile, extended.base) == (old.graphs, old.profile, old.base)
    assert answer["base"] == asdict(old.base)
    assert [adapter.variant for adapter in extended.adapters] == [Variant.SHARED, Variant.FLOAT]
    for adapter in extended.adapters:
        with safe_open(stored.path(adapter.file), framework="np") as file:
            assert file.metadata() == {"base_graph": old.base.graph, "base_profile": old.base.profile}


def test_a_pair_out_of_balance_becomes_the_same_integers_after_the_gauge(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    even = admit(capsys, write_new(tmp_path / "even.safetensors"), bundle)
    skewed = admit(capsys, write_new(tmp_path / "skewed.safetensors", down=1 / 16, up=16), bundle)
    assert even["verdict"] == "admitted"
    reads(skewed["verdict"])
    for name, tensor in integers_of(even).items():
        assert abs(tensor.astype(int) - integers_of(skewed)[name].astype(int)).max() <= 1  # type: ignore[attr-defined]


def test_a_louder_adapter_is_not_added_and_the_answer_says_what_to_do(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = write_new(tmp_path / "loud.safetensors", up=6.0)
    assert main(["adapter", "admit", str(loud), "--bundle", str(bundle)]) == 2
    said = capsys.readouterr()
    says(said.out, "gauge-aligned")
    error = " ".join(said.err.split())
    says(error, "loud", "quadbench run")
    assert list(bundle.parent.iterdir()) == [bundle]


def test_an_adapter_that_is_only_too_strong_is_told_the_command_that_adds_it_at_a_smaller_weight(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_new(tmp_path / "strong.safetensors", up=2.0)
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle), "--name", "mine", "--weight", "2"]) == 2
    (command,) = re.findall(
        r"Hint: quadbench (.*) adds it for tasks that give it at most", " ".join(capsys.readouterr().err.split())
    )
    assert main(shlex.split(command)) == 0
    (extended,) = (path for path in bundle.parent.iterdir() if path != bundle)
    assert {file.weight for file in read_manifest(extended, Bundle).artifact.adapters} == {0.5}


def test_an_adapter_for_more_sites_than_the_base_has_is_told_what_builds_a_base_for_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = next(iter(KNOWN.values()))
    other = Known(down=other.down.clone(), up=other.up.clone(), alpha=other.alpha)
    file = write_kohya(tmp_path / "wide.safetensors", {**KNOWN, "mid_block.elsewhere": other})
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    says(said, "mid_block_elsewhere", "quadbench run")


def test_an_adapter_far_beyond_the_profile_is_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "admit", str(write_new(tmp_path / "wild.safetensors", up=1e3)), "--bundle", str(bundle)]) == 2
    says(capsys.readouterr().out)


def test_inspect_gives_the_judgement_without_adding_anything(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_new(tmp_path / "new.safetensors")
    assert main(["adapter", "inspect", str(file), "--bundle", str(bundle), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["format"], answer["problems"], answer["admission"]["verdict"]) == ("kohya", [], "admitted")
    assert answer["admission"]["bundle"] is None
    assert list(bundle.parent.iterdir()) == [bundle]


def test_a_file_whose_name_is_none_for_an_adapter_is_inspected_and_admitted_under_another(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_new(tmp_path / "模型.safetensors")
    assert main(["adapter", "inspect", str(file), "--bundle", str(bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["admission"]["verdict"] == "admitted"
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    says(said, "模型.safetensors", "--name")
    assert main(["recipe", "new", "--foundation", "emoji-ldm", "--adapter", str(file), "--output", str(tmp_path / "a.yaml")]) == 2
    says(capsys.readouterr().err)


def test_an_adapter_is_judged_and_written_at_the_weight_that_tasks_shall_give_it(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = admit(capsys, write_new(tmp_path / "new.safetensors"), bundle, "--name", "whole")
    half = admit(capsys, write_new(tmp_path / "new.safetensors"), bundle, "--name", "half", "--weight", "0.5")
    assert (whole["weight"], half["weight"]) == (1.0, 0.5)
    assert whole["bundle"] != half["bundle"]
    for answer in (whole, half):
        files = read_manifest(Path(str(answer["bundle"])), Bundle).artifact.adapters
        assert {file.weight for file in files} == {answer["weight"]}
    assert main(["adapter", "admit", str(tmp_path / "new.safetensors"), "--bundle", str(bundle), "--weight", "4"]) == 2
    says(capsys.readouterr().out, "new:4", "gauge-aligned")


@pytest.mark.parametrize("weight", ["0", "-1", "4.5", "nan", "inf"])
def test_a_weight_that_no_adapter_is_admitted_at_is_refused(
    weight: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_new(tmp_path / "new.safetensors")
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle), f"--weight={weight}"]) == 2
    says(capsys.readouterr().err, 0, 4)


def test_a_name_that_no_adapter_can_have_is_refused(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_new(tmp_path / "new.safetensors")
    assert main(["adapter", "admit", str(file), "--bundle", str(bundle), "--name", "Pixel Art"]) == 2
    says(capsys.readouterr().err, "Pixel Art")


@pytest.mark.parametrize("name", ["unet.onnx", "profile.json"])
def test_a_bundle_that_was_changed_takes_no_adapter(
    name: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    before = sorted(bundle.parent.rglob("*"))
    assert main(["adapter", "admit", str(tmp_path / "old.safetensors"), "--bundle", str(bundle), "--name", "new"]) == 3
    says(capsys.readouterr().err, name)
    assert sorted(bundle.parent.rglob("*")) == before


def test_an_admitted_adapters_bundle_bears_the_doubt(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, site = tmp_path / "both.safetensors", "lora_te_text_model_encoder_layers_0_mlp_fc1"
    text = {f"{site}.lora_down.weight": torch.ones(2, 8), f"{site}.lora_up.weight": torch.ones(8, 2)}
    save_file(kohya_tensors(KNOWN) | text, path)
    assert main(["adapter", "admit", str(path), "--bundle", str(bundle), "--unet-only", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["left_out"]["tensors"] == 2
    assert read_manifest(Path(answer["bundle"]), Bundle).artifact.caveats == (Caveat.UNET_ONLY,)


def test_a_second_admission_starts_from_what_the_first_made(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ["--results", str(tmp_path)]
    first = admit(capsys, write_new(tmp_path / "one.safetensors"), bundle, *results)
    second = write_new(tmp_path / "two.safetensors", up=0.9)
    assert main(["adapter", "admit", str(second), *results]) == 0
    shown = capsys.readouterr().out
    says(shown, first["bundle"])
    like = f"--recipe RECIPE --like TASK --bundle {first['bundle']}"
    says(shown, "quadbench adapter admit", second, like, "--results", tmp_path)
    folder = Path(next(line.removeprefix("bundle: ") for line in shown.splitlines() if line.startswith("bundle: ")))
    assert {adapter.name for adapter in read_manifest(folder, Bundle).artifact.adapters} == {"one", "two"}


@pytest.mark.parametrize(
    ("note", "told"),
    [
        ('{"schema_version": 1, "bundle": "../elsewhere", "run_id": null}', ("admitted.json",)),
        ('{"schema_version": 2, "bundle": "b", "run_id": null}', ("admitted.json", "schema_version", 2, 1)),
    ],
)
def test_a_damaged_note_of_the_latest_admission_is_named(
    note: str, told: tuple[object, ...], bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "admitted.json").write_text(note)
    assert main(["adapter", "admit", str(write_new(tmp_path / "one.safetensors")), "--results", str(tmp_path)]) == 3
    says(capsys.readouterr().err, *told)


def test_a_task_like_another_needs_the_recipe(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_new(tmp_path / "one.safetensors")
    assert main(["adapter", "admit", str(new), "--bundle", str(bundle), "--like", "restyle"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    says(said, "--like", "--recipe")
    assert f"quadbench adapter admit {new} --recipe RECIPE --like restyle --bundle {bundle}" in said
