"""Virtual devices. Each is a sandbox on this machine that reports a profile's properties and has its own adbd and adb server.

Emulators run there for foreign hardware: QEMU for arm64 programs, and Qualcomm's emulator for graphs of its NPU.
"""

import contextlib
import errno
import json
import os
import platform
import select
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from quadbench.artifacts import MIB, DeviceFacts
from quadbench.artifacts.safe_text import one_line
from quadbench.devices.adb import AdbDevice
from quadbench.devices.adb_protocol import AdbServer, UnixEndpoint
from quadbench.devices.addresses import VirtualAddress, virtual_serial
from quadbench.devices.android_reports import ABI_PROPERTY, BOOTED_PROPERTY
from quadbench.devices.process_marks import VARIABLE, ProcessMark, device_mark, kill_marked_processes, mark_environment
from quadbench.devices.recording import RecordedScenario, open_scenario
from quadbench.devices.scenario import VIRTUAL_PROPERTY, Scenario, write_userland
from quadbench.devices.scenario_player import playing_scenario, prepare_scenario, scenario_mounts
from quadbench.errors import DeviceError, MissingDependencyError, UserError, extra_hint
from quadbench.host import device_lock, find_programs, host_cpu, install_hint, require_linux, start_child
from quadbench.results.layout import Layout
from quadbench.spec import path_variable
from quadbench.target.abi import PHONE_ABI, Abi, host_abi
from quadbench.target.profile import VIRTUAL_PREFIX, DeviceProfile
from quadbench.target.targets import QnnTarget

SANDBOX_PROGRAMS = {"adb": "adb", "adbd": "adbd", "bwrap": "bubblewrap", "mksh": "mksh", "toybox": "toybox"}
START_TIMEOUT_S = 60.0  # it takes 0.2 s on an idle machine
STOP_TIMEOUT_S = 10.0
ADBD_PORT = 5640  # outside 5555-5585, which adb servers scan for emulators
TRANSPORT = f"127.0.0.1:{ADBD_PORT}"
_POLL_S = 0.02
_SHOWN_LINES = 3
_NAMESPACES_HINT = (
    "allow user namespaces, which virtual devices need (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0); in Docker run with --privileged; or use the device local"
)

# The script records adbd's exit code, because the server continues without adbd. If a scenario has killed adbd, it starts again
# when the device is plugged in.
_START = """\
(
  while adbd >/run/device/adbd.log 2>&1; status=$?; [ -e /run/device/unplugged ]; do
    while [ -e /run/device/unplugged ]; do sleep 0.05; done
  done
  echo $status >/run/device/adbd.ended
) &
exec adb -L localfilesystem:/run/device/adb.sock nodaemon server >/run/device/server.log 2>&1
"""

_ENVIRONMENT = {
    "PATH": "/system/bin",
    "HOME": "/run/device",
    "TMPDIR": "/data/local/tmp",
    "ADBD_PORT": str(ADBD_PORT),
    "ADB_MDNS": "0",
    "ADB_MDNS_AUTO_CONNECT": "0",
    "ADB_USB": "0",
    "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
}

# seccomp: machine -> (AUDIT_ARCH of linux/audit.h, number of the system call socket)
_ARCHITECTURES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_AF_VSOCK = 40

QEMU = "qemu-aarch64-static"
ROOT_VARIABLE = "QEMU_LD_PREFIX"
_ROOT = "/usr/aarch64-linux-gnu"
_ARM64_LIBRARIES = {
    "ld-linux-aarch64.so.1": "libc6-arm64-cross",
    "libgcc_s.so.1": "libgcc-s1-arm64-cross",
    "libstdc++.so.6": "libstdc++6-arm64-cross",
}

# 64-bit little-endian ELF for aarch64: an executable, or a position-independent one.
_MAGIC = r"\x7fELF\x02\x01\x01" + r"\x00" * 9 + r"\x02\x00\xb7\x00"
_MASK = r"\xff" * 7 + r"\x00" + r"\xff" * 8 + r"\xfe\xff\xff\xff"

# F: the kernel opens the interpreter now. A here-document passes the rule unchanged, which not every shell's echo does.
_REGISTER = """\
refuse() { echo "programs for arm64 need Linux 6.7 or newer, with binfmt_misc in user namespaces" >&2; exit 1; }
mkdir /tmp/binfmt_misc && mount -t binfmt_misc binfmt_misc /tmp/binfmt_misc || refuse
cat >/tmp/binfmt_misc/register <<'RULE' || refuse
RULE_TEXT
RULE
"""

_HTP_PACKAGE = "onnxruntime_qnn"
EMULATOR_FOLDER = f"/vendor/{_HTP_PACKAGE}"
"""Mount point in a virtual device for ONNX Runtime's QNN plugin and Qualcomm's HTP emulator."""


@dataclass(frozen=True, kw_only=True)
class DataPartition:
    """A virtual device's /data: the permanent `folder` if `size_bytes` is None, otherwise a RAM disk that is lost at shutdown."""

    folder: Path
    size_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Arm64Emulator:
    """The QEMU program on this machine, and the folder `root` with the loader and libraries that arm64 programs need."""

    qemu: Path
    root: Path

    @property
    def start(self) -> str:
        """Return shell text that registers QEMU for arm64 programs. It mounts binfmt_misc, which needs CAP_SYS_ADMIN."""
        return _REGISTER.replace("RULE_TEXT", f":arm64:M::{_MAGIC}:{_MASK}:{self.qemu}:F")


@dataclass(frozen=True, kw_only=True)
class SandboxLayout:
    """The configuration of a virtual device's sandbox. The new `folder` holds the device's files, and `data` describes /data.

    `visible_paths` maps further paths of this machine to read-only mount points in the device. All of the device's processes have
    the `mark`. A `scenario` is played on the device; with an `emulator`, the device runs arm64 programs.
    """

    folder: Path
    data: DataPartition
    visible_paths: Mapping[Path, str]
    mark: ProcessMark
    scenario: Scenario | None = None
    emulator: Arm64Emulator | None = None


def open_virtual(profile: DeviceProfile, address: VirtualAddress, layout: Layout) -> AdbDevice:
    """Start a virtual device; return its AdbDevice. /data is a RAM disk if `address.data_mb` is set, else a permanent folder."""
    require_linux("virtual devices")
    serial, name = virtual_serial(profile), address.text
    folder = layout.device(serial).resolve()
    scenario = open_scenario(address.scenario) if address.scenario else None
    abi = Abi.ARM64_LINUX if address.is_arm64 else host_abi(platform.machine())
    emulator = arm64_emulator(name) if address.is_arm64 else None
    reported = _reported_properties(profile, scenario, name)
    properties = {"ro.serialno": serial, BOOTED_PROPERTY: "1", VIRTUAL_PROPERTY: abi.value, **reported}
    if address.is_arm64:
        properties[ABI_PROPERTY] = PHONE_ABI.value
    data = DataPartition(folder=folder / "data", size_bytes=address.data_mb * MIB if address.data_mb else None)
    with contextlib.ExitStack() as resources:
        resources.enter_context(device_lock(folder, name))
        mark = resources.enter_context(device_mark(folder))
        system = folder / "system"
        shutil.rmtree(system, ignore_errors=True)  # left over from a process that was killed
        system.mkdir()
        resources.callback(shutil.rmtree, system)
        shown = _visible_paths(profile, emulator)
        place = SandboxLayout(folder=system, data=data, visible_paths=shown, mark=mark, scenario=scenario, emulator=emulator)
        server = resources.enter_context(running_sandbox(place, properties, name))
        facts = DeviceFacts(
            address=name,
            family="virtual",
            serial=serial,
            profile=profile.name,
            title=f"{profile.title} (virtual)",
            soc_model=profile.soc.model,
            cpu=host_cpu(),
            android_release=reported.get("ro.build.version.release"),
            fingerprint=reported.get("ro.build.fingerprint"),
        )
        return AdbDevice(server, TRANSPORT, facts=facts, profile=profile, abi=abi, resources=resources.pop_all())


def _reported_properties(profile: DeviceProfile, scenario: Scenario | None, address: str) -> dict[str, str]:
    """Return the properties of a virtual device: its profile's, or those of the phone whose recording its scenario repeats."""
    if not isinstance(scenario, RecordedScenario):
        return profile.virtual_properties()
    properties = scenario.recording.properties
    if wrong := profile.mismatches(properties):
        key, pattern = next(iter(wrong.items()))
        raise UserError(
            f"'{address}': the recording is of another phone: its {key} is '{properties.get(key, '')}', expected '{pattern}'",
            hint=f"name the profile that fits the recording: {VIRTUAL_PREFIX}{scenario.recording.profile}?scenario=...",
        )
    return {key: value for key, value in properties.items() if key not in (BOOTED_PROPERTY, VIRTUAL_PROPERTY)}


def missing_dependencies(profile: DeviceProfile, address: VirtualAddress) -> Iterator[MissingDependencyError]:
    """Yield an error for each program or package that a virtual device needs but that is not installed on this machine."""

    def emulated() -> None:
        _visible_paths(profile, arm64_emulator(address.text) if address.is_arm64 else None)

    for look in (partial(required_programs, address.text), emulated):
        try:
            look()
        except MissingDependencyError as error:
            yield error


def required_programs(address: str) -> dict[str, Path]:
    """Return a dict from program name to path for the programs that run a virtual device. Raise if any is not installed."""
    require_linux("virtual devices")
    return find_programs(SANDBOX_PROGRAMS, needed_for=f"the virtual device '{address}'")


@contextlib.contextmanager
def running_sandbox(place: SandboxLayout, properties: dict[str, str], address: str) -> Iterator[AdbServer]:
    """Start a virtual device and yield the adb server that serves it. At this server, the device has the adb serial TRANSPORT."""
    programs, folder = required_programs(address), place.folder
    scenario = place.scenario
    exit_codes = {str(tool): code for tool, code in scenario.exit_codes.items()} if scenario else {}
    write_userland(folder / "system", properties, shell=programs["mksh"], toybox=programs["toybox"], exit_codes=exit_codes)
    for name in ("adb", "adbd"):
        (folder / "system" / "bin" / name).symlink_to(programs[name])
    (folder / "run").mkdir()
    if scenario:
        prepare_scenario(scenario, folder)
    with _started_sandbox(place, programs, address) as process:
        server = AdbServer(endpoint=UnixEndpoint(path=folder / "run" / "adb.sock"), end=partial(_end, process, folder))
        _attach(server, folder, address)
        mark = place.mark.value
        course = playing_scenario(scenario, folder, mark, server, TRANSPORT) if scenario else contextlib.nullcontext(server)
        with course as reached:
            yield reached


@contextlib.contextmanager
def _started_sandbox(place: SandboxLayout, programs: dict[str, Path], address: str) -> Iterator["subprocess.Popen[bytes]"]:
    seccomp, writer = os.pipe()
    with open(writer, "wb") as file:  # noqa: PTH123
        file.write(_vsock_filter())
    info_reader, info_writer = os.pipe()
    argv = _command(place, programs, seccomp=seccomp, info=info_writer)
    with open(info_reader, "rb", buffering=0):  # noqa: PTH123
        try:
            with (place.folder / "sandbox.log").open("wb") as errors:
                process = start_child(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    pass_fds=(seccomp, info_writer),
                    env=mark_environment(place.mark.value),
                )
        finally:
            os.close(seccomp)
            os.close(info_writer)
        first_process: int | None = None
        try:
            first_process = _first_process(info_reader, process)
            yield process
        finally:
            # When the namespace's first process dies, the kernel kills all others in it.
            if process.poll() is None and first_process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(first_process, signal.SIGKILL)
            else:
                process.kill()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise DeviceError(f"the sandbox of '{address}' (process {process.pid}) does not end") from error
            kill_marked_processes(place.mark.value)


def _first_process(info: int, process: "subprocess.Popen[bytes]") -> int | None:
    """Return the id of a sandbox's first process from bwrap's JSON output. Return None if bwrap ends or 60 s pass without an id.

    A process that outlives bwrap may hold the pipe open, so do not wait for the end of the output.
    """
    text, deadline = b"", time.monotonic() + START_TIMEOUT_S
    while b"}" not in text and time.monotonic() < deadline:
        if select.select([info], [], [], _POLL_S)[0]:
            if not (piece := os.read(info, 4096)):
                break
            text += piece
        elif process.poll() is not None:
            break
    return int(json.loads(text)["child-pid"]) if b"}" in text else None


def _attach(server: AdbServer, folder: Path, address: str) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    reason = "nothing was tried"
    while time.monotonic() < deadline:
        if end := server.end():
            logs = (folder / "run" / log for log in ("adbd.log", "server.log"))
            log_text = _last_lines(folder / "sandbox.log") or " / ".join(filter(None, map(_last_lines, logs)))
            hint = _NAMESPACES_HINT if "bwrap:" in log_text else None
            what = f"{end}; its log: {log_text}" if log_text else end
            raise DeviceError(f"the virtual device '{address}' did not start: {what}", hint=hint)
        try:
            reason = server.connect(TRANSPORT)
            if server.has_ready(TRANSPORT):
                return
        except DeviceError as error:
            reason = error.message
        time.sleep(_POLL_S)
    raise DeviceError(f"the virtual device '{address}' did not start within {START_TIMEOUT_S:g} s: {one_line(reason)}")


def _end(process: "subprocess.Popen[bytes]", folder: Path) -> str | None:
    """Return a message that a virtual device's adbd or its whole sandbox has ended, or None while both run."""
    ended = folder / "run" / "adbd.ended"
    if ended.exists() and (status := ended.read_text().strip()):
        killed = f", killed by signal {int(status) - 128}" if status.isdecimal() and int(status) > 128 else ""
        return f"its adbd ended with exit code {status}{killed}"
    return None if process.poll() is None else "its sandbox ended"


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_SHOWN_LINES:] if log.exists() else []
    return one_line("\n".join(lines))


def _command(place: SandboxLayout, programs: dict[str, Path], *, seccomp: int, info: int) -> list[str]:
    environment, emulator = {**_ENVIRONMENT, VARIABLE: place.mark.value}, place.emulator
    if emulator:
        environment[ROOT_VARIABLE] = str(emulator.root)
    data = place.data
    if data.size_bytes is not None:
        data_mounts = ["--size", str(data.size_bytes), "--tmpfs", "/data", "--dir", "/data/local/tmp"]
    else:
        (data.folder / "local" / "tmp").mkdir(parents=True, exist_ok=True)
        data_mounts = ["--bind", str(data.folder), "/data"]
    return [
        str(programs["bwrap"]),
        *("--unshare-user", "--uid", "0", "--gid", "0", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"),
        *("--hostname", "localhost", "--die-with-parent", "--new-session", "--clearenv"),
        *("--seccomp", str(seccomp), "--info-fd", str(info), *(("--cap-add", "CAP_SYS_ADMIN") if emulator else ())),
        *_system_mounts(place.folder, programs),
        *(word for here, there in place.visible_paths.items() for word in ("--ro-bind", str(here), there)),
        *(scenario_mounts(place.folder) if place.scenario else ()),
        *data_mounts,
        *(word for name, value in environment.items() for word in ("--setenv", name, value)),
        *("--chdir", "/", "/system/bin/sh", "-c", f"{emulator.start if emulator else ''}{_START}"),
    ]


def _system_mounts(folder: Path, programs: dict[str, Path]) -> list[str]:
    """Return bwrap's mount arguments. Host libraries and /system are read-only; /proc, /dev and /tmp are the device's own."""
    mounts = ["--ro-bind", "/usr", "/usr", "--ro-bind", str(folder / "system"), "/system"]
    for library in ("lib", "lib32", "lib64"):
        path = Path("/", library)
        if path.is_symlink():
            mounts += ["--symlink", str(path.readlink()), str(path)]
        elif path.exists():
            mounts += ["--ro-bind", str(path), str(path)]
    for program in programs.values():
        if not program.is_relative_to("/usr"):
            mounts += ["--ro-bind", str(program), str(program)]
    cpus = "/sys/devices/system/cpu"
    mounts += ["--symlink", "system/bin", "/bin", "--symlink", "system/etc", "/etc", "--proc", "/proc", "--dev", "/dev"]
    mounts += ["--ro-bind-try", cpus, cpus, "--tmpfs", "/tmp", "--bind", str(folder / "run"), "/run/device"]
    return mounts


def _vsock_filter() -> bytes:
    """Return a seccomp program that makes socket(AF_VSOCK) fail. Else adbd would listen on vsock, which no namespace isolates."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        known = ", ".join(sorted(_ARCHITECTURES))
        raise DeviceError(f"virtual devices run on {known}, this machine is {machine}", hint="use the device local")
    architecture, socket_call = _ARCHITECTURES[machine]
    load, equal, leave = 0x20, 0x15, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_RET|K; offsets are those of struct seccomp_data
    refuse, allow = 0x00050000 | errno.EAFNOSUPPORT, 0x7FFF0000  # SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW
    program = (
        (load, 0, 0, 4), (equal, 0, 5, architecture),
        (load, 0, 0, 0), (equal, 0, 3, socket_call),
        (load, 0, 0, 16), (equal, 0, 1, _AF_VSOCK),
        (leave, 0, 0, refuse), (leave, 0, 0, allow),
    )  # fmt: skip
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _visible_paths(profile: DeviceProfile, emulator: Arm64Emulator | None) -> dict[Path, str]:
    """Return the QEMU or HTP emulator paths to mount in a virtual device, as a dict from host path to mount point. {} if none."""
    if emulator:
        return {path: str(path) for path in (emulator.qemu, emulator.root)}
    if not isinstance(profile.virtual_target, QnnTarget):
        return {}
    package = _htp_package()
    further = package.with_name(f"{_HTP_PACKAGE}.libs")
    # Both are mounted side by side: the libraries of one find those of the other by a relative path.
    return {package: EMULATOR_FOLDER, **({further: f"{EMULATOR_FOLDER}.libs"} if further.is_dir() else {})}


def arm64_emulator(address: str) -> Arm64Emulator | None:
    """Return an Arm64Emulator (paths of QEMU and arm64 libraries) for a virtual device. Return None if this machine is arm64.

    Raises:
        MissingDependencyError: names the missing programs or libraries.
    """
    if host_abi(platform.machine()) is Abi.ARM64_LINUX:
        return None
    needed_for, root = f"the virtual device '{address}'", path_variable(ROOT_VARIABLE) or Path(_ROOT)
    qemu = find_programs({QEMU: "qemu-user-static"}, needed_for=needed_for)[QEMU]
    missing = {name: package for name, package in _ARM64_LIBRARIES.items() if not (root / "lib" / name).exists()}
    if missing:
        raise MissingDependencyError(
            f"{needed_for} needs {', '.join(missing)} for arm64 in '{root / 'lib'}'",
            hint=f"{install_hint(missing.values())}; or set {ROOT_VARIABLE} to the folder above lib",
        )
    return Arm64Emulator(qemu=qemu, root=root.resolve())


def emulator_libraries() -> dict[str, Path]:
    """Return Qualcomm's HTP emulator libraries as a dict from the path in a virtual device to the path on this machine.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    return {f"{EMULATOR_FOLDER}/{library.name}": library for library in sorted(_htp_package().glob("lib*.so"))}


def _htp_package() -> Path:
    spec = find_spec(_HTP_PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "Qualcomm's HTP emulator needs the package onnxruntime-qnn", hint=f"on Linux x86-64: {extra_hint('qnn')}"
        )
    return Path(spec.origin).parent
