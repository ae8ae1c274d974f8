"""The harness for arm64 boards: built here with zig, and run by qemu with ONNX Runtime's own build for arm64."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import RESULTS
from PIL import Image

from quadbench.artifacts.kit import Role
from quadbench.errors import BuildError
from quadbench.harness.program import ensure_harness
from quadbench.kits.elf import read_elf
from quadbench.kits.store import list_kits
from quadbench.results.layout import Layout
from quadbench.target.abi import Abi

pytest.importorskip("onnx")

from support.harness_launch import launch
from support.harness_model import as_floats, draw_adapter
from support.harness_scene import ADAPTERS, painted, shared_plan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="session")
def arm64_harness() -> Path:
    """The harness for arm64 boards, built once; zig takes minutes the first time."""
    return ensure_harness(Layout(RESULTS).programs, Abi.ARM64_LINUX)


def test_the_harness_for_arm64_boards_needs_nothing_but_glibc(arm64_harness: Path) -> None:
    elf = read_elf(arm64_harness, name=arm64_harness.name, fault=BuildError)
    assert (elf.machine_name, elf.interpreter) == ("aarch64", "/lib/ld-linux-aarch64.so.1")
    assert elf.alignment_bytes == 65536
    assert set(elf.needed) <= {"libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0"}


def test_the_harness_for_arm64_boards_paints_the_images_of_the_same_loop_in_numpy(
    arm64_harness: Path, assets: Path, tmp_path: Path
) -> None:
    qemu, roots = shutil.which("qemu-aarch64-static"), os.environ.get("QEMU_LD_PREFIX", "/usr/aarch64-linux-gnu")
    kit = next((kit for kit in list_kits(Layout(RESULTS)) if kit.artifact.abi is Abi.ARM64_LINUX), None)
    if qemu is None or kit is None or not Path(roots, "lib/libstdc++.so.6").exists():
        pytest.skip("needs qemu-user-static, libstdc++6-arm64-cross and: quadbench runtime fetch onnxruntime-linux")
    (runtime,) = kit.artifact.libraries_with_role(Role.RUNTIME)
    plan = shared_plan(assets, tmp_path)
    plan["runtime"]["library"] = str(kit.path(runtime.file))
    plan["sequence"] = [{"task": "restyle", "warmup": 0, "iterations": 1}]
    heard = launch(arm64_harness, plan, emulator=[qemu, "-L", roots], timeout_s=600)
    assert heard.exit_code == 0, heard.stderr
    image = np.asarray(Image.open(tmp_path / "images/restyle/000.png")).astype(np.float32)
    assert np.abs(image - painted("restyle", 0, as_floats(draw_adapter(ADAPTERS["restyle"], "int16")))).max() <= 0.51
