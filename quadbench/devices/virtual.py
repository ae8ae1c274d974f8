"""Virtual: a device profile -> a device on this machine that is reached through adb."""

import contextlib
import shutil
from pathlib import Path

from quadbench.artifacts import MIB, DeviceFacts
from quadbench.devices.adb import AdbDevice
from quadbench.devices.emulator import emulator_folders
from quadbench.devices.leftovers import marked
from quadbench.devices.sandbox import TRANSPORT, Data, Place, running_sandbox
from quadbench.devices.scenario import Scenario
from quadbench.host import device_lock, host_cpu
from quadbench.results.layout import Layout
from quadbench.target.profile import DeviceProfile
from quadbench.target.targets import QnnTarget


def open_virtual(
    profile: DeviceProfile, address: str, layout: Layout, data_mb: int | None = None, scenario: Scenario | None = None
) -> AdbDevice:
    """Start a virtual device. Its files stay in the results folder, unless `data_mb` gives it so much memory for them instead.

    What the scenario says happens to it.

    Raises:
        MissingDependencyError: a program or package that it needs is not installed.
        DeviceError: another command uses it, or this machine does not allow it.
    """
    serial = f"virtual-{profile.name}"
    folder = layout.device(serial).resolve()
    shown = emulator_folders() if isinstance(profile.virtual_target, QnnTarget) else {}
    properties = {"ro.serialno": serial, **profile.virtual_properties()}
    data = Data(folder=folder / "data", size_bytes=None if data_mb is None else data_mb * MIB)
    with contextlib.ExitStack() as resources:
        resources.enter_context(device_lock(folder, address))
        mark = resources.enter_context(marked(folder))
        system = _fresh_folder(folder / "system")
        resources.callback(shutil.rmtree, system)
        place = Place(folder=system, data=data, shown=shown, mark=mark, scenario=scenario)
        server = resources.enter_context(running_sandbox(place, properties, address))
        return AdbDevice(server, TRANSPORT, _facts(profile, address, serial), profile, resources.pop_all())


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
