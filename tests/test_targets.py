"""Targets: they are found by key and address, and commands show and use them."""

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.errors import UnknownNameError
from quadbench.recipe.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.target.profile import (
    PROFILES_FOLDER,
    PROFILES_VARIABLE,
    find_target,
    known_targets,
    load_profile,
    load_profiles,
    local_profile,
)
from quadbench.target.targets import AiHubTarget


def _rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    assert main(["targets", "--json"]) == 0
    return {row["target"]: row for row in json.loads(capsys.readouterr().out)}


def _bundle_folder(results: Path) -> Path:
    pytest.importorskip("torch")  # its version is part of a bundle's digest
    from support.bundles import write_recipe_bundle

    return write_recipe_bundle(load_recipe("quickstart"), Layout(results)).folder


def test_a_target_stands_once_with_all_who_run_it() -> None:
    known = known_targets([*load_profiles(), local_profile()], "x86_64")
    assert len({target.key for target in known}) == len(known)
    cpu = find_target("onnxruntime-cpu-x86_64", known)
    assert {"virtual:s25", "virtual:tabs11", "local"} <= set(cpu.addresses)


def test_a_hosted_device_names_its_target() -> None:
    target = find_target("hub:s25", known_targets(load_profiles(), "x86_64"))
    assert isinstance(target.target, AiHubTarget)
    assert target.key == "ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx"
    assert target.htp_arch == "v79"


def test_the_oldest_htp_counts_where_several_share_a_target() -> None:
    s25 = next(profile for profile in load_profiles() if profile.name == "s25")
    older = s25.model_copy(update={"name": "s22", "soc": s25.soc.model_copy(update={"htp_arch": "v69"})})
    assert find_target("virtual:s25", known_targets([s25, older], "x86_64")).htp_arch == "v69"


def test_the_lines_that_the_page_of_compilers_gives_for_a_profile_name_a_target(tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/compilers.md").read_text()
    (block,) = re.findall(r"(?:^    .*\n)*^    target: \{.*\n(?:^    .*\n)*", page, re.MULTILINE)
    lines = yaml.safe_load(dedent(block))
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load((PROFILES_FOLDER / "tabs11.yaml").read_text()), **lines, "name": "mine"}))
    assert find_target("litert-e9965", known_targets([load_profile(path)], "x86_64")).profiles == ("mine",)


def test_an_unknown_target_is_answered_with_the_nearest() -> None:
    with raising(UnknownNameError, "hub:s25"):
        find_target("hub:s52", known_targets(load_profiles(), "x86_64"))


def test_targets_says_what_is_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert _rows(capsys)["onnxruntime-cpu-x86_64"]["is_ready"]


def test_targets_says_how_to_configure_ai_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qai_hub")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "absent.ini"))
    row = _rows(capsys)["ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx"]
    assert row["is_ready"] is False
    assert "absent.ini" in str(row["missing"])
    assert "qai-hub configure --api_token" in str(row["hint"])


def test_a_configured_ai_hub_is_ready_without_being_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qai_hub")
    config = tmp_path / "client.ini"
    config.write_text("[api]\napi_token = t\napi_url = http://127.0.0.1:1\nweb_url = http://127.0.0.1:1\n")  # nobody listens
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(config))
    assert _rows(capsys)["ai-hub-samsung-galaxy-s25-family-precompiled-qnn-onnx"]["is_ready"]


def test_targets_without_json_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["targets"]) == 0
    assert "onnxruntime-cpu-x86_64" in capsys.readouterr().out


def test_compile_refuses_an_unknown_target_before_it_builds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "quickstart", "--target", "s52", "--results", str(tmp_path)]) == 2
    says(capsys.readouterr().err, "s52")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "virtual:", "hub:"])
def test_compile_says_what_is_wrong_with_a_broken_profile_in_words(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = (PROFILES_FOLDER / "tabs11.yaml").read_text()
    (tmp_path / "pixel.yaml").write_text(good.replace("name: tabs11", "name: pixel").replace("soc: MT6991}", "soc: ../../x}"))
    monkeypatch.setenv(PROFILES_VARIABLE, str(tmp_path))
    assert main(["compile", "quickstart", "--target", f"{prefix}pixel", "--results", str(tmp_path / "results")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    says(said, "alternatives[0].soc", "LiteRT", "SM8750", "MT6991", "E9965", "Tensor_G5")
    assert "unknown target" not in said


def test_compile_refuses_a_target_that_is_not_ready_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qai_hub")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "absent.ini"))
    assert main(["compile", "quickstart", "--target", "hub:s25", "--results", str(tmp_path / "results")]) == 7
    assert "qai-hub configure --api_token" in capsys.readouterr().err
    assert not (tmp_path / "results").exists()


def test_a_run_on_a_hosted_phone_is_refused_before_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("qai_hub")
    monkeypatch.setenv("QAIHUB_CLIENT_INI", str(tmp_path / "absent.ini"))
    assert main(["run", "quickstart", "--devices", "hub:s25", "--results", str(tmp_path / "results")]) == 7
    says(capsys.readouterr().err, "hub:s25")
    assert not (tmp_path / "results").exists()


def test_compile_says_where_the_product_lies_and_reuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["compile", str(_bundle_folder(tmp_path)), "--target", "local", "--results", str(tmp_path), "--json"]
    assert main(command) == 0
    first = json.loads(capsys.readouterr().out)
    assert (Path(first["folder"]) / "shared/unet.onnx").is_file()
    assert first["target"].startswith("onnxruntime-cpu-")
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == first | {"is_reused": True}


def test_compile_names_the_folder_and_its_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(_bundle_folder(tmp_path)), "--target", "s25", "--results", str(tmp_path)]) == 0
    folder, size, doubt, *table = capsys.readouterr().out.splitlines()
    assert Path(folder).parent == tmp_path / "compiled"
    assert size.startswith("onnxruntime-cpu-aarch64: 6 files, ")
    assert doubt.startswith("simulated integers:")
    graphs = {" ".join(line.split()[:-2]) for line in table if line.strip().startswith(("shared", "per-graph"))}
    assert graphs >= {"shared unet", "shared vae_decoder", "per-graph unet of restyle"}
    assert len(graphs) == 6


def test_a_target_that_an_address_asks_for_is_said_to_run_there(capsys: pytest.CaptureFixture[str]) -> None:
    npu = _rows(capsys)["qnn-v79-69"]
    assert {"s25?target=qnn", "virtual:s25?target=qnn"} <= set(npu["addresses"])
    assert all(address.endswith("?target=qnn") for address in npu["addresses"])
    known = known_targets(load_profiles(), "x86_64")
    assert find_target("virtual:s25?target=qnn", known).key == "qnn-v79-69"
    assert find_target("tabs11?target=litert", known).key == "litert-mt6991"
