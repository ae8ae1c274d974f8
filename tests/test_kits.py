"""Kits: what an operator brings becomes a kit, or is refused with every reason."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.elf_files import AARCH64, HEXAGON, X86_64, write_elf
from support.kit_files import ANDROID, BUILD, PLUGIN, RUNTIME, SKEL, STUB, write_aar, write_archive, write_qnn, write_runtime
from support.sentences import raising, reads, says

from quadbench.artifacts.kit import Kit, Role
from quadbench.artifacts.run_record import file_refs
from quadbench.cli import main
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.kits import store
from quadbench.kits.kit_compatibility import (
    BLIND_PLUGINS,
    OLDEST_RUNTIME,
    QNN_RELEASES,
    best_kit,
    compiler_build,
    compiler_problem,
    kit_doubts,
    libraries_for,
    target_problems,
)
from quadbench.results.digests import sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import CHECKSUM, MANIFEST, check_contents, read_manifest
from quadbench.target.abi import Abi
from quadbench.target.targets import OnnxRuntimeTarget, QnnTarget

ROOT = Path(__file__).parents[1]
PHONE = Abi.ARM64_V8A
CPU = OnnxRuntimeTarget(backend="onnxruntime", execution_provider="cpu")
HTP = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)


@pytest.fixture
def qnn(tmp_path: Path) -> Path:
    """A folder with all that Qualcomm's HTP takes; tests break it."""
    write_qnn(tmp_path / "qnn")
    return tmp_path / "qnn"


def refused(files: Path, layout: Layout, abi: Abi = PHONE) -> str:
    """The reasons why a folder makes no kit, after which nothing is left of it."""
    with pytest.raises(UserError) as error:
        store.add_kit([files], abi, layout)
    assert list(layout.kits.iterdir()) == []
    return error.value.message


def test_an_aar_becomes_a_kit_of_what_graphs_need(layout: Layout, tmp_path: Path) -> None:
    java = write_elf(tmp_path / "libonnxruntime4j_jni.so", needed=(*ANDROID, RUNTIME))
    aar = write_aar(tmp_path / "onnxruntime.aar", [write_runtime(tmp_path / "libraries"), java])
    addition = store.add_kit([aar], PHONE, layout)
    kit = addition.kit.artifact
    assert [(library.name, library.role) for library in kit.libraries] == [(RUNTIME, Role.RUNTIME)]
    assert addition.left_out == ("libonnxruntime4j_jni.so",)
    assert (kit.abi, kit.versions) == (PHONE, {"onnxruntime": "1.29.0"})
    assert kit.origins[0].name == "onnxruntime.aar"
    assert store.find_kit(kit.digest[:8], layout).artifact == kit


def test_a_kit_is_named_by_its_content_and_stored_once(layout: Layout, tmp_path: Path) -> None:
    first = store.add_kit([write_runtime(tmp_path / "a")], PHONE, layout).kit
    again = store.add_kit([write_aar(tmp_path / "b.aar", [tmp_path / "a" / RUNTIME])], PHONE, layout).kit
    assert (again.is_reused, again.folder) == (True, first.folder)
    other = store.add_kit([write_runtime(tmp_path / "c", says=b"\0VERS_1.30.0\0")], PHONE, layout).kit
    assert {kit.folder for kit in store.list_kits(layout)} == {first.folder, other.folder}


def test_roles_follow_from_names_and_skels_are_of_the_other_processor(layout: Layout, qnn: Path) -> None:
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    assert {library.name: library.role.value for library in kit.libraries} == {
        RUNTIME: "runtime",
        PLUGIN: "plugin",
        "libQnnHtp.so": "backend",
        "libQnnSystem.so": "backend",
        STUB: "stub",
        SKEL: "skel",
    }
    assert kit.versions["qnn"] == BUILD
    assert target_problems(kit, HTP, "v79", BUILD) == []


def test_libraries_that_others_need_belong_to_the_kit(layout: Layout, tmp_path: Path) -> None:
    folder = write_runtime(tmp_path / "kit", needed=(*ANDROID, "libc++_shared.so")).parent
    write_elf(folder / "libc++_shared.so", needed=ANDROID)
    write_elf(folder / "libunused.so", needed=ANDROID)
    addition = store.add_kit([folder], PHONE, layout)
    assert [library.name for library in addition.kit.artifact.libraries_with_role(Role.SUPPORT)] == ["libc++_shared.so"]
    assert addition.left_out == ("libunused.so",)


def test_the_folder_of_qualcomms_sdk_gives_the_abis_libraries_and_the_skels(layout: Layout, tmp_path: Path, qnn: Path) -> None:
    sdk = tmp_path / "qairt/lib"
    for name, place in ((SKEL, "hexagon-v79/unsigned"), ("libQnnHtp.so", "aarch64-android"), (STUB, "aarch64-android")):
        (sdk / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(qnn / name, sdk / place / name)
    shutil.copy(qnn / "libQnnSystem.so", sdk / "aarch64-android")
    write_elf(sdk / "hexagon-v79/unsigned/libQnnSystem.so")
    (sdk / "x86_64-linux-clang").mkdir()
    write_elf(sdk / "x86_64-linux-clang/libQnnHtp.so", machine=X86_64)
    kit = store.add_kit([sdk.parent, qnn / RUNTIME, qnn / PLUGIN], PHONE, layout).kit.artifact
    assert {library.name for library in kit.libraries} == {path.name for path in qnn.iterdir()}


def test_a_library_of_another_machine_is_refused(layout: Layout, tmp_path: Path) -> None:
    folder = write_runtime(tmp_path / "kit", machine=X86_64).parent
    says(refused(folder, layout), RUNTIME, "x86_64", "aarch64", "arm64-v8a")


def test_a_library_of_another_system_is_refused(layout: Layout, tmp_path: Path) -> None:
    folder = write_runtime(tmp_path / "kit", needed=("libc.so.6", "libstdc++.so.6")).parent
    reads(refused(folder, layout).splitlines()[1:], RUNTIME, "libc.so.6", "arm64-v8a")
    says(refused(write_runtime(tmp_path / "b").parent, layout, Abi.ARM64_LINUX), "libc.so.6", "arm64-linux")


def test_segments_for_pages_of_4_kb_are_refused(layout: Layout, tmp_path: Path) -> None:
    folder = write_runtime(tmp_path / "kit", alignment=4096).parent
    message = refused(folder, layout)
    says(message, RUNTIME, 4, "arm64-v8a", 16)


def test_a_runtime_that_needs_no_libc_is_of_no_system(layout: Layout, tmp_path: Path) -> None:
    message = refused(write_runtime(tmp_path / "kit", needed=("libm.so",)).parent, layout)
    says(message, RUNTIME, "libm.so", "libc.so", "arm64-v8a")
    says(refused(write_runtime(tmp_path / "b", needed=()).parent, layout), RUNTIME)


def test_a_library_that_nobody_has_is_named_with_those_that_need_it(layout: Layout, tmp_path: Path) -> None:
    folder = write_runtime(tmp_path / "kit", needed=(*ANDROID, "libc++_shared.so", "libhidden.so")).parent
    message = refused(folder, layout)
    says(message, RUNTIME, "libc++_shared.so", "libhidden.so", "arm64-v8a")


def test_a_missing_skel_is_named(layout: Layout, qnn: Path) -> None:
    (qnn / SKEL).unlink()
    says(refused(qnn, layout), STUB, SKEL)


def test_a_missing_stub_is_named(layout: Layout, qnn: Path) -> None:
    (qnn / STUB).unlink()
    says(refused(qnn, layout), SKEL, STUB)


def test_a_skel_that_is_for_the_cpu_is_refused(layout: Layout, qnn: Path) -> None:
    write_elf(qnn / SKEL, machine=AARCH64)
    says(refused(qnn, layout), SKEL, "aarch64")


def test_libraries_of_two_builds_of_the_sdk_are_refused(layout: Layout, qnn: Path) -> None:
    write_elf(qnn / STUB, needed=(*ANDROID, "libcdsprpc.so"), says=b"v2.51.0.260929181845")
    message = refused(qnn, layout)
    says(message)
    assert f"{STUB} 2.51.0.260929181845" in message
    assert f"libQnnHtp.so {BUILD}" in message


def test_a_plugin_without_its_backend_and_a_backend_without_its_plugin_are_refused(layout: Layout, qnn: Path) -> None:
    (qnn / "libQnnSystem.so").unlink()
    says(refused(qnn, layout), PLUGIN, "libQnnSystem.so")
    (qnn / PLUGIN).unlink()
    says(refused(qnn, layout), "libQnnHtp.so", PLUGIN, "libLiteRtDispatch_Qualcomm.so")


def test_a_kit_has_one_library_of_onnx_runtime(layout: Layout, qnn: Path) -> None:
    (qnn / RUNTIME).rename(qnn / f"{RUNTIME}.1.29.0")
    assert store.add_kit([qnn], PHONE, layout).kit.artifact.versions["onnxruntime"] == "1.29.0"
    write_runtime(qnn)
    shutil.rmtree(layout.kits)
    says(refused(qnn, layout), "libonnxruntime.so", RUNTIME, f"{RUNTIME}.1.29.0")


def test_all_reasons_come_at_once(layout: Layout, qnn: Path) -> None:
    (qnn / SKEL).unlink()
    write_runtime(qnn, alignment=4096)
    assert len(refused(qnn, layout).splitlines()) == 3


def test_a_kit_of_another_build_than_the_compilers_names_both_and_the_package_to_install(layout: Layout, qnn: Path) -> None:
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    assert compiler_problem(kit, BUILD) is None
    problem = compiler_problem(kit, "2.51.0.260929181845") or ""
    reads(problem, BUILD, "2.51.0.260929181845", "onnxruntime-qnn==2.6.0")
    says(compiler_problem(kit, None), "onnxruntime-qnn")
    odd = replace(kit, versions={"qnn": "2.49.0.260801000000"})
    says(compiler_problem(odd, BUILD), "onnxruntime-qnn", "2.3.0")


def test_the_build_of_the_compiler_here_is_one_that_is_known() -> None:
    pytest.importorskip("onnxruntime_qnn")
    assert compiler_build() in QNN_RELEASES.values()


def test_a_kit_says_why_it_does_not_run_on_a_device(layout: Layout, tmp_path: Path, qnn: Path) -> None:
    bare = store.add_kit([write_runtime(tmp_path / "bare")], PHONE, layout).kit.artifact
    assert target_problems(bare, CPU, "v79", None) == []
    reads(target_problems(bare, HTP, "v79", BUILD), PLUGIN)
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    reads(target_problems(kit, HTP, "v81", BUILD), "v81", "libQnnHtpV81Stub.so", "libQnnHtpV81Skel.so")


def test_the_plugin_of_another_vendor_is_none_for_the_htp(layout: Layout, tmp_path: Path) -> None:
    write_elf(write_runtime(tmp_path / "kit").with_name("libonnxruntime_providers_acme.so"), needed=ANDROID)
    kit = store.add_kit([tmp_path / "kit"], PHONE, layout).kit.artifact
    reads(target_problems(kit, HTP, "v79", BUILD), PLUGIN)


def test_a_version_that_is_no_release_is_refused(layout: Layout, qnn: Path) -> None:
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    with raising(ValueError, "onnxruntime", "1.32.0rc1"):
        replace(kit, versions={"onnxruntime": "1.32.0rc1"})


def test_a_device_takes_what_its_target_needs_alone(layout: Layout, qnn: Path) -> None:
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    assert libraries_for(kit, HTP, "v79") == kit.libraries
    assert {library.name for library in libraries_for(kit, HTP, "v75")} == {path.name for path in qnn.iterdir()} - {STUB, SKEL}
    assert [library.name for library in libraries_for(kit, CPU, "v79")] == [RUNTIME]
    write_elf(qnn / "libQnnHtpPrepare.so", needed=ANDROID, says=f"v{BUILD}".encode())
    with_compiler = store.add_kit([qnn], PHONE, layout).kit.artifact
    assert len(with_compiler.libraries) == len(kit.libraries) + 1
    assert libraries_for(with_compiler, HTP, "v79") == kit.libraries


def test_the_newest_kit_that_runs_the_target_is_taken(layout: Layout, tmp_path: Path, qnn: Path) -> None:
    older = store.add_kit([qnn], PHONE, layout).kit
    newer = store.add_kit([write_runtime(tmp_path / "newer", says=b"\0VERS_1.30.0\0")], PHONE, layout).kit
    assert best_kit([older, newer], PHONE, CPU, "v79", BUILD) == newer
    assert best_kit([older, newer], PHONE, HTP, "v79", BUILD) == older
    assert best_kit([older, newer], PHONE, HTP, "v79", "2.51.0.260929181845") is None
    assert best_kit([older, newer], Abi.ARM64_LINUX, CPU, None, None) is None


def test_a_kit_that_was_changed_is_refused_and_can_be_removed(layout: Layout, tmp_path: Path) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    place = stored.path(stored.artifact.libraries[0].file)
    content = place.read_bytes()
    place.chmod(0o644)
    place.write_bytes(content[:-1] + b"x")
    with raising(ArtifactError, "quadbench runtime remove"):
        check_contents(stored, file_refs(stored.artifact))
    (stored.folder / MANIFEST).write_text("{}")
    with raising(ArtifactError):
        store.find_kit(stored.folder.name, layout)
    store.remove_kit(stored.folder.name, layout)
    assert store.list_kits(layout) == []


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kind", "bundle", ("Input should be", "kit")),
        ("digest", "0" * 64, ("0000",)),
        ("abi", "arm64-linux", ()),
        ("libraries.0.role", "skel", ("libonnxruntime.so", "skel")),
        ("libraries.0.name", "libother.so", ()),
        ("libraries", lambda libraries: libraries * 2, ("libonnxruntime.so",)),
        ("versions.onnxruntime", "1.29.0\nwhole", ("1.29.0\\nwhole",)),
        ("origins.0.licence", "MIT" * 1000, (1000,)),
        ("schema_version", "1", ("schema_version", 1)),
    ],
)
def test_a_manifest_that_was_rewritten_with_its_checksum_is_refused(
    key: str, value: Any, reason: tuple[object, ...], layout: Layout, tmp_path: Path
) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    manifest = stored.folder / MANIFEST
    content = json.loads(manifest.read_text())
    *path, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    place = content
    for part in path:
        place = place[part]
    place[last] = value(place[last]) if callable(value) else value
    manifest.write_text(json.dumps(content))
    (stored.folder / CHECKSUM).write_text(f"{sha256_of(manifest)}  {MANIFEST}\n")
    with raising(ArtifactError, *reason):
        store.list_kits(layout)


def test_adding_the_files_again_mends_a_damaged_kit(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    name = stored.folder.name
    for spoil in (_flip, Path.unlink):
        spoil(stored.path(stored.artifact.libraries[0].file))
        assert main(["runtime", "list", "--results", str(layout.root)]) == ArtifactError.exit_code
        assert f"{name}  damaged: '{stored.folder}" in capsys.readouterr().out
        assert main(["runtime", "list", "--json", "--results", str(layout.root)]) == ArtifactError.exit_code
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["folder"], "quadbench runtime remove" in row["fault"]) == (str(stored.folder), True)
        assert not store.add_kit([tmp_path / "kit"], PHONE, layout).kit.is_reused
        assert main(["runtime", "list", "--results", str(layout.root)]) == 0
        assert capsys.readouterr().out.startswith(f"{name}  {PHONE}  onnxruntime")


def _flip(path: Path) -> None:
    content = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_a_kit_without_its_manifest_is_seen_and_removed(layout: Layout, tmp_path: Path) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    (stored.folder / MANIFEST).unlink()
    (fault,) = store.list_checked_kits(layout).values()
    says(str(fault), "manifest.json", "No such file")
    assert store.remove_kit(stored.folder.name, layout) == stored.folder
    assert list(layout.kits.iterdir()) == []


def test_a_name_in_a_manifest_is_checked_when_it_is_read(layout: Layout, tmp_path: Path) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    manifest = stored.folder / MANIFEST
    manifest.write_text(manifest.read_text().replace(f'"{RUNTIME}"', '"../../libonnxruntime.so"'))
    with raising(ArtifactError):
        read_manifest(stored.folder, Kit)


def test_a_kit_is_found_by_the_beginning_of_its_digest_if_no_other_begins_so(layout: Layout, tmp_path: Path) -> None:
    for number in range(17):  # of which two begin with the same character
        store.add_kit([write_runtime(tmp_path / f"{number}", says=b"\0VERS_1.%d.0\0" % number)], PHONE, layout)
    names = [kit.folder.name for kit in store.list_kits(layout)]
    shared = next(name[0] for name in names if sum(other[0] == name[0] for other in names) > 1)
    with raising(UserError, shared):
        store.find_kit(shared, layout)
    with raising(UnknownNameError, "xyz"):
        store.find_kit("xyz", layout)
    with pytest.raises(UnknownNameError):
        store.remove_kit("", layout)


def test_a_kit_is_not_found_by_more_than_its_digest(layout: Layout, tmp_path: Path) -> None:
    stored = store.add_kit([write_runtime(tmp_path / "kit")], PHONE, layout).kit
    digest, name = stored.artifact.digest, stored.folder.name
    assert store.find_kit(digest, layout).artifact == store.find_kit(digest[:20], layout).artifact == stored.artifact
    for more in (f"{name}zz", digest[:-1] + "x", f"{digest}0", f"{name}/../{name}"):
        with pytest.raises(UnknownNameError):
            store.remove_kit(more, layout)
    assert stored.folder.is_dir()


DSP_LIBRARIES = ("libc++.so.1", "libc++abi.so.1")


def test_what_a_skel_needs_on_the_dsp_is_carried_and_is_for_hexagon(layout: Layout, qnn: Path) -> None:
    write_elf(qnn / SKEL, machine=HEXAGON, needed=DSP_LIBRARIES, says=f"v{BUILD}".encode())
    for name in DSP_LIBRARIES:
        write_elf(qnn / name, machine=HEXAGON, needed=("libgcc.so",), alignment=4096)
    kit = store.add_kit([qnn], PHONE, layout).kit.artifact
    assert {library.name for library in kit.libraries_with_role(Role.SUPPORT)} == set(DSP_LIBRARIES)
    assert set(DSP_LIBRARIES) <= {library.name for library in libraries_for(kit, HTP, "v79")}


def test_a_library_of_the_dsp_that_is_for_the_cpu_is_refused_with_the_skel_that_needs_it(layout: Layout, qnn: Path) -> None:
    write_elf(qnn / "libc++.so.1", needed=ANDROID)
    says(refused(qnn, layout), "libc++.so.1", "aarch64", "hexagon", SKEL)


def test_a_library_for_hexagon_that_the_cpu_needs_is_refused(layout: Layout, qnn: Path) -> None:
    write_elf(qnn / "libc++.so.1", machine=HEXAGON, needed=(), alignment=4096)
    write_elf(qnn / "libQnnSystem.so", needed=(*ANDROID, "libc++.so.1"))
    says(refused(qnn, layout), "libc++.so.1", "hexagon", "aarch64")


def test_the_sdk_s_hexagon_folder_gives_the_dsp_s_c_library_too(layout: Layout, tmp_path: Path, qnn: Path) -> None:
    library = write_elf(tmp_path / "libc++.so.1", machine=HEXAGON, needed=(), alignment=4096)
    own = [(f"lib/aarch64-android/{path.name}", path.read_bytes()) for path in qnn.iterdir() if path.name != SKEL]
    dsp = [(f"lib/hexagon-v79/unsigned/{path.name}", path.read_bytes()) for path in (qnn / SKEL, library)]
    sdk = write_archive(tmp_path / "sdk.zip", [*own, *dsp])
    assert "libc++.so.1" in {one.name for one in store.add_kit([sdk], PHONE, layout).kit.artifact.libraries}


def test_a_kit_without_stub_and_skel_is_stored_with_a_word_on_it(
    layout: Layout, qnn: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (qnn / STUB).unlink()
    (qnn / SKEL).unlink()
    assert main(["runtime", "add", str(qnn), "--results", str(layout.root)]) == 0
    says(capsys.readouterr().out, "libQnnHtp.so", STUB, SKEL)


def test_a_kit_with_stub_and_skel_has_no_doubts(layout: Layout, qnn: Path) -> None:
    assert kit_doubts(store.add_kit([qnn], PHONE, layout).kit.artifact) == []


def test_the_runtime_with_qualcomm_s_provider_built_in_is_told_from_the_plugin_of_the_same_name(
    layout: Layout, tmp_path: Path
) -> None:
    aar = tmp_path / "onnxruntime-android-qnn-1.27.0.aar"
    write_aar(aar, [write_runtime(tmp_path / "kit", says=b"\0VERS_1.27.0\0\0QnnInterface_getProviders\0")])
    says(refused(aar, layout), RUNTIME, "com.microsoft.onnxruntime", "com.qualcomm.qti:onnxruntime-android-qnn")


@pytest.mark.parametrize(
    ("aar", "build", "is_named"),
    [
        ("onnxruntime-android-qnn-2.4.0.aar", BUILD, True),
        ("onnxruntime-android-qnn-2.6.0.aar", BUILD, False),
        ("onnxruntime-android-qnn-2.4.01.aar", BUILD, False),
        ("onnxruntime-android-qnn-2.6.0.aar", QNN_RELEASES["2.4.0"], False),  # the file's name says more than the build
        ("plugin.aar", QNN_RELEASES["2.4.0"], True),
        ("plugin.aar", BUILD, False),
    ],
)
def test_a_plugin_that_shows_no_npu_on_android_is_named(
    aar: str, build: str, is_named: bool, layout: Layout, tmp_path: Path
) -> None:
    write_aar(tmp_path / aar, write_qnn(tmp_path / "qnn", build))
    doubts = kit_doubts(store.add_kit([tmp_path / aar], PHONE, layout).kit.artifact)
    assert bool(doubts) is is_named
    if doubts:
        reads(doubts, PLUGIN, "2.4.0", BLIND_PLUGINS["2.4.0"], "2.7.0")


def test_a_runtime_that_is_older_than_the_plugin_takes_is_named(layout: Layout, qnn: Path) -> None:
    write_runtime(qnn, says=b"\0VERS_1.24.1\0")
    reads(kit_doubts(store.add_kit([qnn], PHONE, layout).kit.artifact), "1.24.1", OLDEST_RUNTIME)


def test_the_versions_that_the_page_says_fit_are_those_of_the_code_and_of_the_pins() -> None:
    page = (ROOT / "docs/phones.md").read_text()
    text = " ".join(page.split())
    rows = dict(re.findall(r"^\| (2\.\d+\.\d+) \| `([\d.]+)` \|", page, re.MULTILINE))
    assert rows == QNN_RELEASES
    assert f"ONNX Runtime {OLDEST_RUNTIME} or newer" in text
    pinned = re.search(r"onnxruntime-qnn>=([\d.]+);", (ROOT / "pyproject.toml").read_text())
    assert pinned
    assert f"{pinned[1]}.0" in set(QNN_RELEASES) - set(BLIND_PLUGINS)
    told = re.search(r"its AAR with ONNX Runtime ([\d.]+),", text)
    assert told
    assert [int(part) for part in told[1].split(".")] >= [int(part) for part in OLDEST_RUNTIME.split(".")]


def test_three_aars_of_the_public_layout_make_a_kit_for_the_npu(layout: Layout, tmp_path: Path) -> None:
    files = {path.name: path for path in write_qnn(tmp_path / "qnn")}
    htp = [path for name, path in files.items() if name not in (RUNTIME, PLUGIN)]
    others = [write_elf(tmp_path / f"libQnnHtpV{arch}Skel.so", machine=HEXAGON, needed=(), alignment=4096) for arch in (75, 81)]
    others += [write_elf(tmp_path / f"libQnnHtpV{arch}Stub.so", needed=(*ANDROID, "libcdsprpc.so")) for arch in (75, 81)]
    unused = [write_elf(tmp_path / name, needed=ANDROID) for name in ("libQnnGpu.so", "libQnnDsp.so", "libonnxruntime4j_jni.so")]
    aars = [
        write_aar(tmp_path / "onnxruntime-android-1.29.0.aar", [files[RUNTIME], unused[2]]),
        write_aar(tmp_path / "onnxruntime-android-qnn-2.6.0.aar", [files[PLUGIN]]),
        write_aar(tmp_path / "qnn-runtime-2.50.40.aar", [*htp, *others, *unused[:2]]),
    ]
    added = store.add_kit(aars, PHONE, layout)
    kit = added.kit.artifact
    assert target_problems(kit, HTP, "v79", BUILD) == []
    assert kit_doubts(kit) == []
    assert set(added.left_out) == {path.name for path in unused}
    assert {library.htp_arch for library in libraries_for(kit, HTP, "v79")} == {None, "v79"}
