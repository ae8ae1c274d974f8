"""Virtual: a device profile -> a device on this machine that is reached through adb."""

import contextlib
import platform
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from quadbench.artifacts import MIB, DeviceFacts
from quadbench.devices.adb import AdbDevice
from quadbench.devices.addresses import VirtualAddress, virtual_serial
from quadbench.devices.arm64 import Arm64Emulator, arm64_emulator
from quadbench.devices.emulator import emulator_folders
from quadbench.devices.leftovers import marked
from quadbench.devices.properties import ABI_PROPERTY, BOOTED_PROPERTY
from quadbench.devices.sandbox import TRANSPORT, Data, Place, required_programs, running_sandbox
from quadbench.devices.scenario import load_scenario
from quadbench.devices.userland import VIRTUAL_PROPERTY
from quadbench.errors import MissingDependencyError
from quadbench.host import device_lock, host_cpu
from quadbench.results.layout import Layout
from quadbench.target.abi import Abi, host_abi
from quadbench.target.known import PHONE_ABI
from quadbench.target.profile import DeviceProfile
from quadbench.target.targets import QnnTarget


def open_virtual(profile: DeviceProfile, address: str, options: VirtualAddress, layout: Layout) -> AdbDevice:
    """Start a virtual device with what its address asks for. Its files stay in the results folder, unless they lie in memory.

    Raises:
        UnknownNameError, SpecError: there is no such scenario, or it is wrong.
        MissingDependencyError: a program or package that it needs is not installed.
        DeviceError: another command uses it, or this machine does not allow it.
    """
    serial = virtual_serial(profile)
    folder = layout.device(serial).resolve()
    scenario = load_scenario(options.scenario) if options.scenario else None
    abi = Abi.ARM64_LINUX if options.is_arm64 else host_abi(platform.machine())
    emulator = arm64_emulator(address) if options.is_arm64 else None
    properties = {
        "ro.serialno": serial,
        BOOTED_PROPERTY: "1",
        VIRTUAL_PROPERTY: abi.value,
        **profile.virtual_properties(),
    }
    if options.is_arm64:
        properties[ABI_PROPERTY] = PHONE_ABI.value
    data = Data(folder=folder / "data", size_bytes=options.data_mb * MIB if options.data_mb else None)
    with contextlib.ExitStack() as resources:
        resources.enter_context(device_lock(folder, address))
        mark = resources.enter_context(marked(folder))
        system = _fresh_folder(folder / "system")
        resources.callback(shutil.rmtree, system)
        shown = _shown(profile, emulator)
        place = Place(folder=system, data=data, shown=shown, mark=mark, scenario=scenario, emulator=emulator)
        server = resources.enter_context(running_sandbox(place, properties, address))
        facts = _facts(profile, address, serial)
        return AdbDevice(server, TRANSPORT, facts=facts, profile=profile, abi=abi, resources=resources.pop_all())


def lacking(profile: DeviceProfile, address: str, options: VirtualAddress) -> Iterator[MissingDependencyError]:
    """Yield an error for whatever a virtual device needs of this machine and is not installed."""

    def emulated() -> None:
        _shown(profile, arm64_emulator(address) if options.is_arm64 else None)

    for look in (partial(required_programs, address), emulated):
        try:
            look()
        except MissingDependencyError as error:
            yield error


def _shown(profile: DeviceProfile, emulator: Arm64Emulator | None) -> dict[Path, str]:
    """Return the files and folders of this machine that a device sees: an emulator of its CPU, or else of its HTP."""
    if emulator:
        return {path: str(path) for path in (emulator.qemu, emulator.root)}
    return emulator_folders() if isinstance(profile.virtual_target, QnnTarget) else {}


def _fresh_folder(path: Path) -> Path:
    """Make an empty folder, also where a process that was killed has left a full one."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def _facts(profile: DeviceProfile, address: str, serial: str) -> DeviceFacts:
    properties = profile.virtual_properties()
    return DeviceFacts(
        address=address,
        family="virtual",
        serial=serial,
        profile=profile.name,
        title=f"{profile.title} (virtual)",
        soc_model=profile.soc.model,
        cpu=host_cpu(),
        android_release=properties.get("ro.build.version.release"),
        fingerprint=properties.get("ro.build.fingerprint"),
    )
