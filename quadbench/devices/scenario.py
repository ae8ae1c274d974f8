"""Scenarios of virtual devices: their YAML format, and the simulated system files, dumpsys reports and CPU clocks."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from quadbench.devices.android_reports import format_getprop
from quadbench.errors import MissingDependencyError, UnknownNameError
from quadbench.spec import Name, Problem, Spec, is_file, load, refuse

SCENARIOS_FOLDER = Path(__file__).parent / "scenarios"

SLOWEST_MB_PER_S = 0.01  # one 64 KB message then takes six seconds; adb's timeout is thirty
Seconds = Annotated[float, Field(ge=0, le=3600)]
ExitCode = Annotated[int, Field(ge=0, le=255)]

VIRTUAL_PROPERTY = "ro.quadbench.virtual"
"""A property that only virtual devices have: the ABI of the programs they run. It may differ from the ABI they report."""
_REQUIRED_TOOLS = {"cat", "chmod", "df", "env", "find", "ln", "ls", "mkdir", "mv", "rm", "sha256sum", "stat"}

_GETPROP = """\
#!/system/bin/sh
# Android's getprop: all properties, or the one that is named
[ $# -eq 0 ] && exec cat /system/etc/properties
while IFS= read -r line; do
  case $line in
    "[$1]: ["*) line=${line#"[$1]: ["}; echo "${line%]}"; exit 0 ;;
  esac
done < /system/etc/properties
echo "${2-}"
"""

_DUMPSYS = """\
#!/system/bin/sh
# Android's dumpsys, of the services that a virtual device has
case $1 in
  -l) echo "Currently running services:"; cd /system/etc/dumpsys && for service in *; do echo "  $service"; done ;;
  meminfo)
    while read -r key value unit; do
      case $key in
        MemTotal:) echo "Total RAM: ${value}K" ;;
        MemAvailable:) echo " Free RAM: ${value}K" ;;
      esac
    done < /proc/meminfo ;;
  *)
    if [ -n "$1" ] && [ -f "/system/etc/dumpsys/$1" ]; then exec cat "/system/etc/dumpsys/$1"; fi
    echo "Can't find service: $1" ;;
esac
"""

_REPORTS = {
    "thermalservice": """\
Virtual device: it has no thermal sensors
HAL Ready: false
Current temperatures from HAL:
Current cooling devices from HAL:
""",
    "battery": """\
Current Battery Service state:
  AC powered: true
  USB powered: false
  Wireless powered: false
  present: false
  technology: none, a virtual device
""",
    "meminfo": "",
}

_THERMAL_REPORT = """\
IsStatusOverride: false
Thermal Status: {phase.thermal_status}
Cached temperatures:
HAL Ready: true
Current temperatures from HAL:
\tTemperature{{mValue={phase.skin_c}, mType=3, mName=SKIN, mStatus={phase.thermal_status}}}
Current cooling devices from HAL:
"""

_BATTERY_REPORT = """\
Current Battery Service state:
  AC powered: false
  USB powered: {usb}
  Wireless powered: false
  present: true
  level: {phase.battery_percent}
  scale: 100
  temperature: 300
  technology: Li-ion
"""

_LIAR = """\
#!/system/bin/sh
{tool} {name} "$@"
exit {exit_code}
"""

_ACCOUNTS = {
    "passwd": "root:x:0:0::/:/system/bin/sh\nshell:x:2000:2000::/:/system/bin/sh\n",
    "group": "root:x:0:\nshell:x:2000:\n",
}


class Phase(Spec):
    """The state (temperatures, battery, clocks) that a virtual device reports until its scenario's next phase begins."""

    after_s: Seconds = 0.0
    """The phase begins this many seconds after the device's start. The default is 0."""
    thermal_status: int = Field(default=0, ge=0, le=6)
    """Android's thermal service reports this status, from 0 (none) to 6 (shutdown). The default is 0."""
    skin_c: float = Field(default=33.0, ge=-40, le=150)
    """The skin sensor reports this temperature in degrees Celsius. The default is 33."""
    battery_percent: int = Field(default=80, ge=0, le=100)
    """The battery reports this charge. The default is 80."""
    is_charging: bool = False
    """The device is powered through USB. The default is false."""


class Clocks(Spec):
    """The CPU frequency limits that a virtual device's kernel reports. They are the same for all cores."""

    hardware_khz: int = Field(gt=0, le=10_000_000)
    """The hardware's maximum frequency in kHz."""
    cap_khz: int = Field(gt=0, le=10_000_000)
    """The current maximum frequency in kHz; it is below the hardware's if the device is throttled."""

    @field_validator("cap_khz")
    @classmethod
    def _hardware_reaches_it(cls, cap_khz: int, info: ValidationInfo) -> int:
        hardware_khz = info.data.get("hardware_khz", cap_khz)
        if cap_khz > hardware_khz:
            refuse([Problem(location=(), reason=f"expected at most hardware_khz, {hardware_khz}, found {cap_khz}")])
        return cap_khz


class LaunchMoment(Spec):
    """A trigger for an event in a scenario: the event occurs `after_s` seconds after a benchmark process (harness) starts."""

    at: Literal["launch"]
    """Selects a moment after the start of a harness process."""
    launch: int = Field(default=1, ge=1, le=10_000)
    """The number of the harness process since the device's start. The default is 1."""
    after_s: Seconds = 0.0
    """Seconds after the start of that harness process. The default is 0."""


class PushMoment(Spec):
    """A trigger for an event in a scenario: the event occurs once `after_mb` MiB have been pushed to the device."""

    at: Literal["push"]
    """Selects a moment by the amount of data pushed."""
    after_mb: float = Field(ge=0, le=1_000_000)
    """MiB that were sent to the device since its start."""


class Fault(Spec):
    """A single incident on a virtual device: it is unplugged, reboots or gets hot."""

    event: Literal["unplug", "reboot", "heat"]
    """The device loses its connection (processes continue), reboots (processes end), or reports thermal status 3."""
    when: Annotated[LaunchMoment | PushMoment, Field(discriminator="at")]
    """The moment when it happens."""
    for_s: float | None = Field(default=None, ge=0.01, le=3600)
    """Seconds until the device is back or cool, at least 0.01. The default is null: it stays away or hot."""


class Scenario(Spec):
    """A scenario for a virtual device: what the device reports, and when it is unplugged, reboots or gets hot."""

    schema_version: Literal[1]
    """The version of this file format is 1."""
    name: Name
    """The scenario's name in a device address, as in `virtual:s25?scenario=NAME`."""
    title: str = Field(min_length=1, max_length=200)
    """A sentence of at most 200 characters that describes the scenario."""
    phases: tuple[Phase, ...] = Field(default=(), max_length=100)
    """States that the device reports in turn. The default is none: it has neither sensors nor a battery."""
    clocks: Clocks | None = None
    """The CPU frequency that the kernel reports. The default is null: that of this machine."""
    free_mb: int | None = Field(default=None, ge=0, le=1_048_576)
    """MiB of available memory that the kernel reports. The default is null: those of this machine."""
    link_mb_per_s: float | None = Field(default=None, ge=SLOWEST_MB_PER_S, le=10_000)
    """Transfer rate of the link in MiB/s in each direction, at least 0.01. The default is null: unlimited."""
    exit_codes: dict[Literal["df", "mkdir", "mv", "rm", "sha256sum", "stat"], ExitCode] = Field(default_factory=dict)
    """Tools that do their work but always return this exit code, from 0 to 255. The default is none."""
    events: tuple[Fault, ...] = Field(default=(), max_length=100)
    """Incidents that happen to the device. The default is none."""


def load_scenario(name_or_path: str) -> Scenario:
    """Return the scenario in the file `name_or_path`, or the built-in scenario of that name. If both exist, use the file.

    Raises:
        SpecError: the file is invalid.
        UnknownNameError: there is neither a scenario with this name nor such a file.
    """
    path = Path(name_or_path)
    if is_file(path) or len(path.parts) > 1:
        return load(path, Scenario)
    files = {file.stem: file for file in sorted(SCENARIOS_FOLDER.glob("*.yaml"))}
    if name_or_path in files:
        return load(files[name_or_path], Scenario)
    is_named_as_file = path.suffix in (".yaml", ".yml")
    hint = f"there is no file '{path}'" if is_named_as_file else None
    raise UnknownNameError("scenario", path.stem if is_named_as_file else name_or_path, files, hint=hint)


def write_userland(system: Path, properties: dict[str, str], *, shell: Path, toybox: Path, exit_codes: Mapping[str, int]) -> None:
    """Create a virtual device's /system, with its programs and files, as the new folder `system` on this machine.

    Tools listed in `exit_codes` do their work but always return that exit code.
    """
    programs, etc = system / "bin", system / "etc"
    reports = etc / "dumpsys"
    for folder in (programs, etc, reports):
        folder.mkdir(parents=True)
    (programs / "sh").symlink_to(shell)
    available = subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split()
    if missing := _REQUIRED_TOOLS.difference(available):
        raise MissingDependencyError(
            f"{toybox} lacks {', '.join(sorted(missing))}", hint="install Debian's toybox: apt-get install --reinstall toybox"
        )
    for tool in available:
        if tool in exit_codes:
            _write_program(programs / tool, _LIAR.format(tool=toybox, name=tool, exit_code=exit_codes[tool]))
        else:
            (programs / tool).symlink_to(toybox)
    _write_program(programs / "getprop", _GETPROP)
    _write_program(programs / "dumpsys", _DUMPSYS)
    (etc / "properties").write_text(format_getprop(properties))
    for service, report in _REPORTS.items():
        (reports / service).write_text(report)
    for name, accounts in _ACCOUNTS.items():
        (etc / name).write_text(accounts)


def write_reports(system: Path, phase: Phase) -> None:
    """Write a phase's simulated dumpsys reports below the folder `system`. Replace each file atomically."""
    battery = _BATTERY_REPORT.format(phase=phase, usb=str(phase.is_charging).lower())
    for service, report in (("thermalservice", _THERMAL_REPORT.format(phase=phase)), ("battery", battery)):
        new = system / "etc" / f"{service}.new"
        new.write_text(report)
        new.replace(system / "etc" / "dumpsys" / service)


def write_clocks(folder: Path, clocks: Clocks) -> None:
    """Write the kernel's simulated cpufreq files into a new folder, with one frequency policy for all cores."""
    policy = folder / "policy0"
    policy.mkdir(parents=True)
    reports = {"scaling_cur_freq": clocks.cap_khz, "scaling_max_freq": clocks.cap_khz, "cpuinfo_max_freq": clocks.hardware_khz}
    for name, khz in reports.items():
        (policy / name).write_text(f"{khz}\n")


def write_memory(file: Path, free_mb: int) -> None:
    """Write a copy of this machine's /proc/meminfo to a file. The copy reports `free_mb` MiB of available memory."""
    report = Path("/proc/meminfo").read_text()
    file.write_text(re.sub(r"^MemAvailable:.*$", f"MemAvailable: {free_mb * 1024} kB", report, flags=re.MULTILINE))


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
