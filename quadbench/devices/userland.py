"""Userland: a virtual device's properties -> the folder that it sees as /system: Android's shell, tools and reports.

The tools are toybox and mksh, which are Android's own. `getprop` and `dumpsys` answer in Android's format, with what is known:
the profile's properties and this machine's memory. A virtual device has no thermal sensors and no battery, and says so.
"""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from quadbench.devices.properties import format_getprop
from quadbench.devices.scenario import Clocks, Phase
from quadbench.errors import MissingDependencyError

VIRTUAL_PROPERTY = "ro.quadbench.virtual"
"""Property of virtual devices alone: the ABI of programs that run there, whatever ABI they report."""
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


def write_userland(system: Path, properties: dict[str, str], *, shell: Path, toybox: Path, exit_codes: Mapping[str, int]) -> None:
    """Fill a new folder with the programs and files that a virtual device has below /system.

    Tools with one of the `exit_codes` end with it whatever came of their work.

    Raises:
        MissingDependencyError: toybox lacks tools that quadbench uses.
    """
    programs, etc = system / "bin", system / "etc"
    reports = etc / "dumpsys"
    for folder in (programs, etc, reports):
        folder.mkdir(parents=True)
    (programs / "sh").symlink_to(shell)
    for tool in _tools_of(toybox):
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
    """Have the device report the state of a phase from now on. Whoever reads meanwhile gets the old report or the new one."""
    battery = _BATTERY_REPORT.format(phase=phase, usb=str(phase.is_charging).lower())
    for service, report in (("thermalservice", _THERMAL_REPORT.format(phase=phase)), ("battery", battery)):
        new = system / "etc" / f"{service}.new"
        new.write_text(report)
        new.replace(system / "etc" / "dumpsys" / service)


def write_clocks(folder: Path, clocks: Clocks) -> None:
    """Fill a new folder with what the kernel would report of the clocks, as one policy for all cores."""
    policy = folder / "policy0"
    policy.mkdir(parents=True)
    reports = {"scaling_cur_freq": clocks.cap_khz, "scaling_max_freq": clocks.cap_khz, "cpuinfo_max_freq": clocks.hardware_khz}
    for name, khz in reports.items():
        (policy / name).write_text(f"{khz}\n")


def write_memory(file: Path, free_mb: int) -> None:
    """Write what the kernel would report of memory: this machine's, of which so much is available."""
    report = Path("/proc/meminfo").read_text()
    file.write_text(re.sub(r"^MemAvailable:.*$", f"MemAvailable: {free_mb * 1024} kB", report, flags=re.MULTILINE))


def _tools_of(toybox: Path) -> list[str]:
    available = subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split()
    if missing := _REQUIRED_TOOLS.difference(available):
        raise MissingDependencyError(
            f"{toybox} lacks {', '.join(sorted(missing))}", hint="use Debian's: apt-get install --reinstall toybox"
        )
    return available


def _write_program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)
