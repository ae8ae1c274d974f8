"""Toolchain target: a profile with mistakes in a toolchain is refused when it is read, each mistake at its line."""

from pathlib import Path
from textwrap import dedent

import pytest
from support.bench_phone import PHONE, with_toolchain
from support.sentences import says

from quadbench.errors import SpecError
from quadbench.target.profile import load_profile, load_profiles
from quadbench.target.targets import LiteRtTarget, ToolchainTarget, target_key

DOCS = Path(__file__).parents[1] / "docs"
PROFILE = with_toolchain(
    '["{ACME_SDK}/convert", "{input}"]',
    '[acme-cc, "{work}/half", -o, model.bin]',
    version=r"{command: [acme-cc, --version], pattern: '(\d+)'}",
)


def refusal(folder: Path, right: str, wrong: str) -> str:
    """Return the message by which the profile is refused with `wrong` in place of `right`."""
    assert right in PROFILE
    path = folder / "bench.yaml"
    path.write_text(PROFILE.replace(right, wrong))
    with pytest.raises(SpecError) as refused:
        load_profile(path)
    return str(refused.value).replace(str(path), "bench.yaml")


def test_a_toolchain_is_read_with_its_profile(tmp_path: Path) -> None:
    (tmp_path / "bench.yaml").write_text(PROFILE)
    (target,) = load_profile(tmp_path / "bench.yaml").alternatives
    assert isinstance(target, ToolchainTarget)
    assert target.commands[1] == ("acme-cc", "{work}/half", "-o", "model.bin")
    assert target_key(target, "x86_64") == "toolchain-acme"


@pytest.mark.parametrize(
    ("right", "wrong", "expected"),
    [
        (
            '"{input}"',
            '"{inptu}"',
            ("bench.yaml:13: alternatives[0].commands[0][1]", "{inptu}", "bench.yaml:12: alternatives[0].commands", "{input}"),
        ),
        (
            "[ACME_SDK]",
            "[]",
            ("bench.yaml:13: alternatives[0].commands[0][0]", "{ACME_SDK}"),
        ),
        ("half", "half}", ("bench.yaml:14: alternatives[0].commands[1][1]",)),
        (
            "--version]",
            '"{work}"]',
            ("bench.yaml:16: alternatives[0].version.command[1]", "{work}", "ACME_SDK"),
        ),
        (r"(\d+)", r"\d+", ("bench.yaml:16: alternatives[0].version.pattern",)),
        (r"(\d+)", r"(\d+", ("bench.yaml:16: alternatives[0].version.pattern",)),
        ("product: model.bin", "product: ../model.bin", ("bench.yaml:15: alternatives[0].product",)),
        ("timeout_s: 60", "timeout_s: 0", ("bench.yaml:17: alternatives[0].timeout_s", 0)),
        (
            "[ACME_SDK]",
            "[acme]",
            ("bench.yaml:11: alternatives[0].environment[0]",),
        ),
        ("    product: model.bin\n", "", ("alternatives[0].product",)),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path: Path, right: str, wrong: str, expected: tuple[object, ...]) -> None:
    message = refusal(tmp_path, right, wrong)
    says(message, *expected)


def test_a_toolchain_is_nothing_that_a_device_runs(tmp_path: Path) -> None:
    message = refusal(tmp_path, "virtual_target: {backend: onnxruntime, ", "virtual_target: {backend: toolchain, ")
    assert message.startswith("bench.yaml:7: virtual_target.backend: expected ")
    assert message.endswith(", found text 'toolchain'")


def test_chips_of_mediatek_and_samsung_have_a_compiler_for_their_npu() -> None:
    targets = [(profile.soc.vendor, target) for profile in load_profiles() for target in profile.alternatives]
    assert {"mediatek", "samsung"} <= {vendor for vendor, target in targets if isinstance(target, LiteRtTarget) and target.soc}


@pytest.mark.parametrize("name", ["neuropilot-mt6991", "qairt-sm8750"])
def test_the_page_s_examples_of_a_toolchain_are_right(tmp_path: Path, name: str) -> None:
    (tmp_path / "bench.yaml").write_text(PHONE + example("compilers.md", f"name: {name}"))
    (target,) = load_profile(tmp_path / "bench.yaml").alternatives
    assert isinstance(target, ToolchainTarget)
    assert target.name == name


def test_the_page_s_example_of_a_profile_is_right(tmp_path: Path) -> None:
    (tmp_path / "find-x8-pro.yaml").write_text(example("adding-a-device.md", "schema_version:"))
    profile = load_profile(tmp_path / "find-x8-pro.yaml")
    assert profile.matches(profile.virtual_properties())


def example(page: str, words: str) -> str:
    """Return the page's indented block that has the words."""
    blocks = (DOCS / page).read_text().split("\n\n")
    return dedent(next(block for block in blocks if block.startswith("    ") and words in block))
