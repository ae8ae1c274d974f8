"""Rollout to a phone: harness and kit of its ABI are pushed, named there, and asked for before anything is built.

The phone is a virtual device behind the user's adb server that reports Android's ABI; the NDK is a stub.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle
from support.elf_files import write_elf
from support.kit_files import PLUGIN, RUNTIME, write_qnn, write_runtime
from support.sentences import raising, says
from support.stub_ndk import write_stub_ndk
from support.watcher import Silent

from quadbench import pipeline
from quadbench.devices.addresses import parse_addresses
from quadbench.devices.connections import connect
from quadbench.devices.lab.health import FAILURES_IN_A_ROW
from quadbench.devices.scenario import VIRTUAL_PROPERTY
from quadbench.errors import ArtifactError, DeviceError, MissingDependencyError, UnknownNameError, UserError
from quadbench.harness.installation import execution_provider_of
from quadbench.harness.program import NDK_VARIABLE
from quadbench.kits import store
from quadbench.recipe.recipe import load_recipe
from quadbench.recipe.settings import Gate
from quadbench.results.layout import Layout
from quadbench.results.manifest import MANIFEST
from quadbench.rollout import roll_out
from quadbench.rollout.equipment import DeviceKind, Overrides, find_named_kit, kit_for, require_equipment
from quadbench.target.abi import Abi
from quadbench.target.profile import PROFILES_FOLDER, load_profile
from quadbench.target.targets import QnnTarget

pytest.importorskip("onnx")

QUICKSTART = load_recipe("quickstart")
HTP = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)


SERIAL = "127.0.0.1:5640"


@contextlib.contextmanager
def attached(folder: Path, patch: pytest.MonkeyPatch, abi: str = "arm64-v8a", options: str = "") -> Iterator[str]:
    """Yield the address of a phone at the user's adb server that reports the ABI; it runs what this machine does."""
    profile = folder / "phone.yaml"
    properties = f"properties:\n  {VIRTUAL_PROPERTY}: android\n  ro.product.cpu.abi: {abi}\n"
    s25 = (PROFILES_FOLDER / "s25.yaml").read_text()
    profile.write_text(s25.replace("name: s25\n", "name: phone\n").replace("properties:\n", properties))
    with connect(parse_addresses([f"virtual:{profile}{options}"]), layout=Layout(folder)):
        patch.setenv("ADB_SERVER_SOCKET", f"localfilesystem:{folder}/devices/virtual-phone/system/run/adb.sock")
        yield f"{profile}@{SERIAL}"


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv(NDK_VARIABLE, raising=False)
    with attached(tmp_path, monkeypatch) as address:
        yield address


@pytest.fixture
def ndk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stub in place of the NDK, after the phone has made sure that there is none."""
    stub = write_stub_ndk(tmp_path / "ndk")
    write_elf(stub.program, needed=("libc.so",), interpreter=Abi.ARM64_V8A.traits.interpreter, android_api=29)
    monkeypatch.setenv(NDK_VARIABLE, str(stub.folder))


def test_a_phone_takes_the_harness_of_its_abi_and_its_kit_under_the_libraries_names(
    phone: str, ndk: None, layout: Layout, tmp_path: Path
) -> None:
    bundle = write_recipe_bundle(QUICKSTART, layout)
    kit = store.add_kit([write_runtime(tmp_path / "kit")], Abi.ARM64_V8A, layout).kit.artifact
    folder = f"/data/local/tmp/quadbench/kits/{kit.digest}"
    with connect(parse_addresses([phone]), layout=layout) as (device,):
        assert device.abi is Abi.ARM64_V8A
        for _ in range(2):  # what is there already is no hindrance
            (installation,) = roll_out([bundle], [device], layout=layout, observer=Silent()).installations
        digests = device.shell(["sha256sum", f"{folder}/{RUNTIME}", installation.path_of_digest(installation.program, "")], 30)
        assert [line.split()[0] for line in digests.stdout.splitlines()] == [kit.libraries[0].file.sha256, installation.program]
    assert installation.compiled.artifact.target == "onnxruntime-cpu-aarch64"
    assert installation.kit is not None
    dsp = f"{folder};/vendor/dsp/cdsp;/vendor/lib/rfsa/adsp;/vendor/dsp"
    assert installation.kit.environment == {"LD_LIBRARY_PATH": folder, "ADSP_LIBRARY_PATH": dsp}
    assert installation.kit.versions == {"kit": kit.digest, f"kit.{RUNTIME}": kit.libraries[0].file.sha256}
    assert installation.path_of_library(installation.runtime) == f"{folder}/{RUNTIME}"


def test_a_phone_without_a_kit_is_refused_before_anything_is_built(phone: str, ndk: None, layout: Layout) -> None:
    with pytest.raises(MissingDependencyError) as refusal:
        pipeline.run(QUICKSTART, parse_addresses([phone]), layout=layout, observer=Silent())
    says(refusal.value.message, phone, "arm64-v8a", "onnxruntime-cpu-aarch64")
    assert refusal.value.hint == "quadbench runtime fetch onnxruntime-android"
    assert not layout.bundles.exists()
    assert not layout.programs.exists()


def test_a_phone_without_an_ndk_is_refused_before_anything_is_built(phone: str, layout: Layout, tmp_path: Path) -> None:
    store.add_kit([write_runtime(tmp_path / "kit")], Abi.ARM64_V8A, layout)
    with raising(MissingDependencyError, "Android", "ANDROID_NDK_HOME"):
        pipeline.run(QUICKSTART, parse_addresses([phone]), layout=layout, observer=Silent())
    assert not layout.bundles.exists()


def test_a_harness_that_is_named_needs_no_other(harness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUADBENCH_HARNESS", "/nowhere")
    with connect(parse_addresses(["local"]), layout=Layout(tmp_path)) as devices:
        with raising(UserError, "QUADBENCH_HARNESS", "/nowhere"):
            require_equipment(devices, Layout(tmp_path))
        require_equipment(devices, Layout(tmp_path), Overrides(harness=harness))


def test_a_kit_that_is_named_stands_for_the_one_that_is_missing(phone: str, ndk: None, layout: Layout) -> None:
    with connect(parse_addresses([phone]), layout=layout) as devices:
        with raising(MissingDependencyError):
            require_equipment(devices, layout)
        with raising(UnknownNameError, "0123"):
            require_equipment(devices, layout, Overrides(kit="0123"))


def test_a_kit_that_was_changed_is_not_pushed(phone: str, ndk: None, layout: Layout, tmp_path: Path) -> None:
    kit = store.add_kit([write_runtime(tmp_path / "kit")], Abi.ARM64_V8A, layout).kit
    library = kit.path(kit.artifact.libraries[0].file)
    content = bytearray(library.read_bytes())
    content[-1] ^= 1
    library.chmod(0o644)
    library.write_bytes(content)
    with raising(ArtifactError):
        pipeline.run(QUICKSTART, parse_addresses([phone]), layout=layout, observer=Silent())


def test_a_phone_without_room_for_a_launch_goes_into_quarantine_after_three_runs(
    ndk: None, layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once = QUICKSTART.measure.model_copy(update={"launches": 1, "gate": Gate(max_busy_percent=100, wait_s=0)})
    recipe = QUICKSTART.model_copy(update={"measure": at_once})
    write_recipe_bundle(recipe, layout)
    store.add_kit([write_runtime(tmp_path / "kit")], Abi.ARM64_V8A, layout)
    with attached(tmp_path, monkeypatch, options="?data_mb=1") as address:
        for _ in range(FAILURES_IN_A_ROW):
            assert (
                pipeline.run(recipe, parse_addresses([address]), layout=layout, observer=Silent()).exit_code
                == DeviceError.exit_code
            )
        with raising(DeviceError, 3, 8):
            pipeline.run(recipe, parse_addresses([address]), layout=layout, observer=Silent())


@pytest.mark.parametrize("abi", ["x86_64", "armeabi-v7a"])
def test_a_phone_of_another_abi_is_refused(abi: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        attached(tmp_path, monkeypatch, abi) as address,
        raising(DeviceError, abi, "ro.product.cpu.abi", "arm64-v8a"),
        connect(parse_addresses([address]), layout=Layout(tmp_path)),
    ):
        pass


def test_the_npu_takes_its_libraries_by_absolute_paths_of_the_kit() -> None:
    provider = execution_provider_of(HTP, "/data/local/tmp/quadbench/kits/d")
    assert provider is not None
    assert not provider.is_emulator
    assert provider.plan_entry(2) == {
        "name": "QNNExecutionProvider",
        "options": {
            "backend_path": "/data/local/tmp/quadbench/kits/d/libQnnHtp.so",
            "htp_arch": "79",
            "soc_model": "69",
            "htp_performance_mode": "default",
        },
        "library": f"/data/local/tmp/quadbench/kits/d/{PLUGIN}",
    }


def test_a_record_says_in_which_mode_the_npu_ran_and_where_its_inputs_lay() -> None:
    npu = next(target for target in load_profile("s25").targets() if isinstance(target, QnnTarget))
    provider = execution_provider_of(npu, "/kits/d")
    assert provider is not None
    assert provider.settings["provider"] == "QNNExecutionProvider"
    assert provider.settings["provider.htp_performance_mode"] == "burst"
    assert provider.settings["provider.lora_memory"] == "host"


def test_a_kit_that_is_named_is_taken_whatever_is_wrong_with_another(layout: Layout, tmp_path: Path) -> None:
    kit, other = (
        store.add_kit([write_runtime(tmp_path / f"{n}", says=b"\0VERS_1.%d.0\0" % n)], Abi.ARM64_V8A, layout).kit for n in (1, 2)
    )
    (other.folder / MANIFEST).write_text("{")
    profile = load_profile("s25")
    kind = DeviceKind(address="s25", serial="R3X", profile=profile, abi=Abi.ARM64_V8A, target=profile.target)
    assert find_named_kit(kind, layout, kit.artifact.digest[:12]).kit.artifact == kit.artifact


def test_the_reason_why_a_kit_does_not_run_a_target_is_said(layout: Layout, tmp_path: Path) -> None:
    write_qnn(tmp_path / "qnn", build="1.0.0.250101000000")
    kit = store.add_kit([tmp_path / "qnn"], Abi.ARM64_V8A, layout).kit.artifact
    kind = DeviceKind(address="s25?target=qnn", serial="R3X", profile=load_profile("s25"), abi=Abi.ARM64_V8A, target=HTP)
    with pytest.raises(MissingDependencyError) as refusal:
        kit_for(kind, layout)
    says(refusal.value.message, kit.digest[:12], "1.0.0.250101000000")
    assert "quadbench runtime add" in str(refusal.value.hint)
    on_cpu = kit_for(
        DeviceKind(address="s25", serial="R3X", profile=kind.profile, abi=kind.abi, target=kind.profile.target), layout
    )
    assert on_cpu is not None
    assert [library.name for library in on_cpu.libraries] == [RUNTIME]
