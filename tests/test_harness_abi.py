"""The harness for each ABI: what CMake is told, what is missing, and the check of what came out."""

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from support.elf_files import X86_64, write_elf
from support.sentences import raising
from support.stub_ndk import StubNdk, write_stub_ndk

from quadbench.cli import main
from quadbench.errors import BuildError, MissingDependencyError
from quadbench.harness.program import NDK_VARIABLE, ensure_harness
from quadbench.kits.elf import read_elf
from quadbench.kits.kit_compatibility import program_problem
from quadbench.target.abi import Abi, host_abi

LINKER = Abi.ARM64_V8A.traits.interpreter
LIBRARIES = ("libc.so", "libm.so", "libdl.so")


@pytest.fixture
def ndk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StubNdk:
    """A stub in place of the NDK that gives a program as the NDK would."""
    stub = write_stub_ndk(tmp_path / "ndk")
    write_elf(stub.program, needed=LIBRARIES, interpreter=LINKER, android_api=29)
    monkeypatch.setenv(NDK_VARIABLE, str(stub.folder))
    return stub


@dataclass(frozen=True)
class Built:
    """A harness that was built into `folder`, and the calls of the NDK by which it was."""

    ndk: StubNdk
    folder: Path
    program: Path
    calls: str


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The first build of an NDK. Others may follow it in its folder."""
    folder = tmp_path_factory.mktemp("built")
    stub = write_stub_ndk(folder / "ndk")
    write_elf(stub.program, needed=LIBRARIES, interpreter=LINKER, android_api=29)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(NDK_VARIABLE, str(stub.folder))
        program = ensure_harness(folder / "harness", Abi.ARM64_V8A)
        assert program.read_bytes() == stub.program.read_bytes()
        yield Built(ndk=stub, folder=folder / "harness", program=program, calls=stub.calls)


@pytest.fixture(scope="module")
def calls(first: Built) -> list[str]:
    return first.calls.splitlines()


def test_the_ndk_is_asked_for_16_kb_pages_a_static_libcxx_and_an_old_android(calls: list[str]) -> None:
    assert {
        "ANDROID_ABI=arm64-v8a",
        "ANDROID_PLATFORM=android-29",
        "ANDROID_STL=c++_static",
        "ANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON",
    } <= set(calls)
    compilations = [line for line in calls if " -c " in line]
    assert compilations
    assert all("-std=gnu++20" in line and "-O3" in line for line in compilations)
    assert any(line.startswith("-O3") and " -s " in line and "-o quadbench-harness" in line for line in calls)


def test_the_ndk_sees_three_libraries_headers_and_nothing_else_of_this_machine(calls: list[str]) -> None:
    words = [word for line in calls if " -c " in line for word in line.split()]
    seen = {word for before, word in pairwise(words) if before == "-isystem"}
    assert {Path(word).name for word in seen} == {"headers", "onnxruntime", "stb"}
    assert not [word for word in seen if word.startswith("/usr")]


def test_a_build_is_kept_by_sources_abi_and_compiler(first: Built) -> None:
    calls = first.ndk.calls
    assert ensure_harness(first.folder, Abi.ARM64_V8A) == first.program
    assert first.ndk.calls == calls
    properties = first.ndk.folder / "source.properties"
    before = properties.read_text()
    properties.write_text("Pkg.Revision = 28.0.13004108\n")
    assert ensure_harness(first.folder, Abi.ARM64_V8A) != first.program
    properties.write_text(before)


def test_flags_of_the_environment_make_another_build_and_no_other_build_type(
    first: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXXFLAGS", "-DSLOW")
    monkeypatch.setenv("CMAKE_BUILD_TYPE", "Debug")
    assert ensure_harness(first.folder, Abi.ARM64_V8A) != first.program
    compilations = [line for line in first.ndk.calls.splitlines() if " -c " in line and "-DSLOW" in line]
    assert compilations
    assert all("-O3" in line for line in compilations)


UNFIT: list[tuple[dict[str, Any], str]] = [
    ({"machine": X86_64}, "'quadbench-harness' is for x86_64; expected aarch64, the machine of arm64-v8a"),
    ({"alignment": 4096}, "segments aligned to 4 KB; arm64-v8a can have pages of 16 KB"),
    ({"interpreter": "/lib/ld-linux-aarch64.so.1"}, f"has the loader '/lib/ld-linux-aarch64.so.1'; expected '{LINKER}'"),
    ({"needed": ("libc.so.6",)}, "needs 'libc.so.6', the C library of another system; expected 'libc.so'"),
    ({"needed": ("libc.so", "libc++_shared.so")}, r"needs 'libc\+\+_shared.so', which arm64-v8a does not have"),
    ({"android_api": 24}, "is built for Android API 24; expected 28 or newer"),
]


@pytest.mark.parametrize(("facts", "message"), UNFIT)
def test_a_program_that_a_phone_could_not_start_has_a_problem(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    path = tmp_path / "quadbench-harness"
    write_elf(path, **{"needed": LIBRARIES, "interpreter": LINKER, "android_api": 29, **facts})
    problem = program_problem(path.name, read_elf(path, name=path.name, fault=BuildError), Abi.ARM64_V8A)
    assert re.search(message, str(problem))


@pytest.mark.parametrize(("facts", "message"), [UNFIT[0], *(pytest.param(*case, marks=pytest.mark.slow) for case in UNFIT[1:])])
def test_a_program_that_a_phone_could_not_start_is_not_kept(
    ndk: StubNdk, tmp_path: Path, facts: dict[str, Any], message: str
) -> None:
    write_elf(ndk.program, **{"needed": LIBRARIES, "interpreter": LINKER, "android_api": 29, **facts})
    with pytest.raises(BuildError, match=message):
        ensure_harness(tmp_path / "harness", Abi.ARM64_V8A)
    assert not list((tmp_path / "harness").rglob("quadbench-harness"))


def test_a_missing_ndk_is_named_with_the_place_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(NDK_VARIABLE, raising=False)
    with raising(MissingDependencyError, "ANDROID_NDK_HOME", "https://developer.android.com/ndk/downloads"):
        ensure_harness(tmp_path, Abi.ARM64_V8A)


def test_a_folder_that_is_no_ndk_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(NDK_VARIABLE, str(tmp_path))
    with raising(MissingDependencyError, "source.properties", "build/cmake/android"):
        ensure_harness(tmp_path / "harness", Abi.ARM64_V8A)


def test_the_harness_of_this_machine_fits_its_abi(harness: Path) -> None:
    abi = host_abi(platform.machine())
    assert program_problem(harness.name, read_elf(harness, name=harness.name, fault=BuildError), abi) is None


def test_an_unknown_abi_is_answered_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["harness", "build", "--abi", "armeabi"])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert all(f"'{abi}'" in error for abi in Abi)
