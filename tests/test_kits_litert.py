"""Kits with LiteRT: which libraries make one, what of them a device takes, and what a run without one says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from support.elf_files import X86_64, write_elf
from support.kit_files import (
    ANDROID,
    BUILD,
    LITERT,
    MEDIATEK,
    PLUGIN,
    QUALCOMM,
    RUNTIME,
    SKEL,
    STUB,
    write_aar,
    write_litert,
    write_qnn,
    write_runtime,
)
from support.sentences import reads, says

from quadbench.artifacts.kit import Kit, Role
from quadbench.cli import main
from quadbench.errors import MissingDependencyError, UserError
from quadbench.harness.program import harness_sources
from quadbench.kits import store
from quadbench.kits.elf import exported_names
from quadbench.kits.kit_compatibility import ENTRY_POINTS, libraries_for, target_problems
from quadbench.results.layout import Layout
from quadbench.rollout.equipment import DeviceKind, kit_for
from quadbench.target.abi import Abi
from quadbench.target.profile import load_profile
from quadbench.target.targets import LiteRtTarget, OnnxRuntimeTarget

PHONE = Abi.ARM64_V8A
ORT = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
CPU, MT6991, SM8750 = (LiteRtTarget(backend="litert", soc=soc) for soc in (None, "MT6991", "SM8750"))


def kit_of(folder: Path, layout: Layout) -> Kit:
    return store.add_kit([folder], PHONE, layout).kit.artifact


def refused(folder: Path, layout: Layout) -> list[str]:
    """The reasons why a folder makes no kit."""
    with pytest.raises(UserError) as error:
        store.add_kit([folder], PHONE, layout)
    return error.value.message.splitlines()[1:]


def taken(kit: Kit, target: LiteRtTarget | OnnxRuntimeTarget, htp_arch: str | None = None) -> set[str]:
    return {library.name for library in libraries_for(kit, target, htp_arch)}


def test_a_phone_takes_litert_and_the_dispatch_library_of_its_own_chip(layout: Layout, tmp_path: Path) -> None:
    kit = kit_of(write_litert(tmp_path / "kit", MEDIATEK, "libLiteRtDispatch_GoogleTensor.so"), layout)
    assert {library.name: library.role for library in kit.libraries} == {
        RUNTIME: Role.RUNTIME,
        LITERT: Role.LITERT,
        MEDIATEK: Role.DISPATCH,
        "libLiteRtDispatch_GoogleTensor.so": Role.DISPATCH,
    }
    assert target_problems(kit, MT6991, None, None) == []
    assert taken(kit, MT6991) == {RUNTIME, LITERT, MEDIATEK}
    assert taken(kit, CPU) == {RUNTIME, LITERT}
    assert taken(kit, ORT) == {RUNTIME}


def test_an_aar_and_an_archive_of_dispatch_libraries_make_a_kit(layout: Layout, tmp_path: Path) -> None:
    folder = write_litert(tmp_path / "files", MEDIATEK)
    write_elf(folder / "libLiteRtCompilerPlugin_MediaTek.so", needed=ANDROID)
    plugin = folder / "libLiteRtCompilerPlugin_MediaTek.so"
    sources = [
        write_aar(tmp_path / "onnxruntime.aar", [folder / RUNTIME]),
        write_aar(tmp_path / "litert.aar", [folder / LITERT]),
        write_aar(tmp_path / "npu.zip", [folder / MEDIATEK, plugin]),
    ]
    addition = store.add_kit(sources, PHONE, layout)
    assert addition.left_out == (plugin.name,)
    assert target_problems(addition.kit.artifact, MT6991, None, None) == []


def test_older_builds_write_a_maker_s_name_with_other_capital_letters(layout: Layout, tmp_path: Path) -> None:
    kit = kit_of(write_litert(tmp_path / "kit", "libLiteRtDispatch_Mediatek.so"), layout)
    assert taken(kit, MT6991) == {RUNTIME, LITERT, "libLiteRtDispatch_Mediatek.so"}


def test_a_dispatch_library_without_litert_is_refused(layout: Layout, tmp_path: Path) -> None:
    folder = write_litert(tmp_path / "kit", MEDIATEK)
    (folder / LITERT).unlink()
    reads(refused(folder, layout), MEDIATEK, LITERT)


@pytest.mark.parametrize("is_old", [False, True])
def test_libraries_without_the_functions_that_are_looked_up_in_them_are_refused(
    is_old: bool, layout: Layout, tmp_path: Path
) -> None:
    folder = write_litert(tmp_path / "kit")
    names = sorted(ENTRY_POINTS[Role.LITERT])
    write_elf(folder / LITERT, needed=ANDROID, exports=tuple(names[2:]), is_old=is_old)
    write_elf(folder / MEDIATEK, needed=ANDROID, exports=("LiteRtSomethingElse",), is_old=is_old)
    reads(refused(folder, layout), LITERT, names[0], 1, "LiteRT", "2.3", MEDIATEK, "LiteRtDispatchGetApi")


def test_litert_s_library_for_another_machine_is_refused(layout: Layout, tmp_path: Path) -> None:
    folder = write_litert(tmp_path / "kit")
    write_elf(folder / LITERT, needed=ANDROID, machine=X86_64)
    reads(refused(folder, layout), LITERT, "x86_64", "aarch64", "arm64-v8a")


@pytest.mark.parametrize("at", [4, 16, 40])
def test_a_damaged_table_of_names_is_refused_in_a_sentence(at: int, layout: Layout, tmp_path: Path) -> None:
    folder = write_litert(tmp_path / "kit")
    content = bytearray((folder / LITERT).read_bytes())
    table = content.index(b"\xf5\xfe\xff\x6f")
    content[table + 8 : table + 16] = at.to_bytes(8, "little")  # the address of the hash table
    (folder / LITERT).write_bytes(content)
    with pytest.raises(UserError, match=f"'{LITERT}'"):
        store.add_kit([folder], PHONE, layout)


def test_the_names_are_those_that_the_harness_looks_up() -> None:
    source = (harness_sources() / "src/litert.cpp").read_text()
    assert set(re.findall(r"QUADBENCH_FIND\((LiteRt\w+)\)", source)) == ENTRY_POINTS[Role.LITERT]


def test_qualcomm_s_npu_takes_its_vendor_s_libraries_in_the_build_of_the_compiler(layout: Layout, tmp_path: Path) -> None:
    write_qnn(tmp_path / "kit")
    write_litert(tmp_path / "kit", QUALCOMM)
    kit = kit_of(tmp_path / "kit", layout)
    assert target_problems(kit, SM8750, "v79", BUILD) == []
    assert taken(kit, SM8750, "v79") == {RUNTIME, LITERT, QUALCOMM, "libQnnHtp.so", "libQnnSystem.so", STUB, SKEL}
    (problem,) = target_problems(kit, SM8750, "v79", "2.51.0.260929181845")
    says(problem)
    (problem,) = target_problems(kit, SM8750, "v81", BUILD)[:1]
    reads(problem, "v81", "libQnnHtpV81Stub.so")


def test_qualcomm_s_libraries_need_no_plugin_of_onnx_runtime_where_litert_opens_them(layout: Layout, tmp_path: Path) -> None:
    write_qnn(tmp_path / "kit")
    write_litert(tmp_path / "kit", QUALCOMM)
    (tmp_path / "kit" / PLUGIN).unlink()
    assert target_problems(kit_of(tmp_path / "kit", layout), SM8750, "v79", BUILD) == []


@pytest.mark.parametrize(
    ("dispatches", "words"),
    [
        (None, ("LiteRT", LITERT)),
        ((QUALCOMM,), ("MediaTek", MEDIATEK)),
    ],
)
def test_a_phone_without_the_libraries_is_told_which_and_how_to_get_them(
    dispatches: tuple[str, ...] | None, words: tuple[str, ...], layout: Layout, tmp_path: Path
) -> None:
    folder = tmp_path / "kit"
    store.add_kit([write_litert(folder, *dispatches) if dispatches else write_runtime(folder)], PHONE, layout)
    profile = load_profile("tabs11").with_target("litert")
    kind = DeviceKind(address="tabs11", serial="R3X", profile=profile, abi=PHONE, target=profile.target)
    with pytest.raises(MissingDependencyError) as caught:
        kit_for(kind, layout)
    says(caught.value.message, "tabs11", "arm64-v8a", "litert-mt6991", *words)
    reads(caught.value.hint, "LiteRT", MEDIATEK, "quadbench runtime add", "docs/phones.md")
    board = replace(kind, abi=Abi.ARM64_LINUX, target=CPU)
    with pytest.raises(MissingDependencyError) as caught:
        kit_for(board, layout)
    assert caught.value.hint == "quadbench runtime fetch onnxruntime-linux litert-linux"


def test_show_says_which_of_a_profile_s_targets_litert_s_kit_runs(
    layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kit = kit_of(write_litert(tmp_path / "kit", MEDIATEK), layout)
    assert main(["runtime", "show", kit.digest[:8], "--profile", "tabs11", "--results", str(layout.root)]) == 0
    shown = capsys.readouterr().out
    says(shown, "litert-mt6991", "litert-cpu-aarch64")


def test_exported_names_are_not_those_that_a_library_looks_up_elsewhere(tmp_path: Path) -> None:
    path = write_elf(tmp_path / "libsome.so", exports=("one", "two"))
    assert exported_names(path, ("", "one", "two", "libc.so"), name="libsome.so", fault=UserError) == {"one", "two"}
