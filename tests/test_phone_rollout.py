"""Rollout to a phone: harness and kit of its ABI are pushed, named there, and asked for before anything is built.

The phone is a virtual device behind the user's adb server that reports Android's ABI; the NDK is a stub.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.bundles import write_recipe_bundle
from support.elf_files import write_elf
from support.kit_files import SKEL, STUB, write_qnn, write_runtime
from support.stub_ndk import write_stub_ndk
from support.watcher import Silent

from quadbench import pipeline
from quadbench.artifacts import Stored, Variant
from quadbench.artifacts.kit import Kit
from quadbench.devices import Device, connect
from quadbench.devices.userland import VIRTUAL_PROPERTY
from quadbench.errors import ArtifactError, DeviceError, MissingDependencyError
from quadbench.harness.cmake import NDK_VARIABLE
from quadbench.harness.execution_provider import execution_provider_of
from quadbench.kits import store
from quadbench.kits.for_target import libraries_for
from quadbench.kits.versions import compiler_build
from quadbench.recipe import load_recipe
from quadbench.results.layout import Layout
from quadbench.rollout import roll_out
from quadbench.rollout.equipment import Kind, kit_for
from quadbench.rollout.named import name_libraries
from quadbench.target.abi import Abi
from quadbench.target.profile import PROFILES_FOLDER, load_profile
from quadbench.target.targets import QnnTarget

pytest.importorskip("onnx")

QUICKSTART = load_recipe("quickstart")
HTP = QnnTarget(backend="qnn", htp_arch="v79", soc_model=69)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("phone")


@pytest.fixture(scope="module")
def reported() -> str:
    """The ABI that the phone reports."""
    return "arm64-v8a"


@pytest.fixture
def phone_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an attached phone, as the user's adb server has it."""
    with _attached("arm64-v8a", tmp_path, monkeypatch) as address:
        yield address
