"""What the environment says: within bounds, and read in one place."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quadbench
from quadbench.ai_hub.client import CONFIG_VARIABLE, config_path
from quadbench.devices.adb_protocol import TcpEndpoint, server_endpoint
from quadbench.devices.lab.leases import lease_time_s
from quadbench.doctor.machine import examine
from quadbench.errors import QuadbenchError
from quadbench.farm.condor import this_pool
from quadbench.harness.build_inputs import find_header
from quadbench.harness.program import build_config, find_harness
from quadbench.host import user_and_host
from quadbench.kits.packages import MAVEN_VARIABLE
from quadbench.spec import path_variable
from quadbench.spec.variables import web_variable
from quadbench.target.abi import Abi, host_abi
from quadbench.target.profile import load_profiles

LONG = "a" * 5000


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("ANDROID_NDK_HOME", LONG, lambda: build_config(Abi.ARM64_V8A)),
        ("ANDROID_NDK_HOME", "a" * 300, examine),
        ("ANDROID_NDK_HOME", "/" + "a/" * 2047, lambda: build_config(Abi.ARM64_V8A)),
        ("QUADBENCH_DEVICE_PROFILES", LONG, load_profiles),
        ("QUADBENCH_DEVICE_PROFILES", "a\x1b[31m", load_profiles),
        ("QUADBENCH_HARNESS", LONG, lambda: find_harness(Path("x"), host_abi(os.uname().machine))),
        ("QUADBENCH_HARNESS", "a" * 256, lambda: find_harness(Path("x"), host_abi(os.uname().machine))),
        ("QUADBENCH_MAVEN", "http://[::1", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "http://\udcff", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "http://é/", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "http://x:99999999", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "http://a b", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", f"http://{'a' * 70}.org/", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "file:///etc", lambda: web_variable(MAVEN_VARIABLE)),
        ("QUADBENCH_MAVEN", "https://", lambda: web_variable(MAVEN_VARIABLE)),
        ("ANDROID_ADB_SERVER_PORT", "abc", server_endpoint),
        ("ANDROID_ADB_SERVER_PORT", "99999999", server_endpoint),
        ("ANDROID_ADB_SERVER_PORT", "9" * 4090, server_endpoint),
        ("ANDROID_ADB_SERVER_ADDRESS", "a..b", server_endpoint),
        ("ADB_SERVER_SOCKET", f"tcp:{'a' * 64}:1", server_endpoint),
        ("ADB_SERVER_SOCKET", f"localfilesystem:{'a' * 300}", server_endpoint),
        ("QAIHUB_CLIENT_INI", LONG, config_path),
        ("CONDOR_CONFIG", LONG, this_pool),
        ("CONDOR_CONFIG", "a" * 300, this_pool),
        ("CONDOR_CONFIG", "a\x1b[31m", this_pool),
        ("CONDOR_CONFIG", "/nowhere/condor_config", this_pool),
        ("QUADBENCH_OWNER", LONG, user_and_host),
        ("QUADBENCH_OWNER", "ana@lab\x1b[31m", user_and_host),
        ("QUADBENCH_OWNER", "ana\n@lab", user_and_host),
        ("QUADBENCH_LEASE_S", "nan", lease_time_s),
        ("QUADBENCH_LEASE_S", "1", lease_time_s),
        ("QUADBENCH_LEASE_S", "2 minutes", lease_time_s),
        ("CXX", 'g++ "', lambda: build_config(host_abi(os.uname().machine))),
        ("CXX", "no-such-compiler", lambda: build_config(host_abi(os.uname().machine))),
        ("CMAKE_PREFIX_PATH", f"/usr:{'a' * 300}", lambda: find_header("a")),
    ],
)
def test_a_variable_that_cannot_be_meant_is_refused_by_its_name(
    name: str, value: str, read: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(QuadbenchError) as caught:
        read()
    assert name in str(caught.value) or repr(value) in str(caught.value)


def test_the_dry_run_of_this_machine_does_without_the_servers_variables() -> None:
    command = [sys.executable, "-c", "import quadbench.devices.connections, quadbench.rollout.forecast"]
    subprocess.run(command, env={**os.environ, "ANDROID_ADB_SERVER_PORT": "abc"}, check=True)


def test_an_address_of_ipv6_loses_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADB_SERVER_SOCKET", "tcp:[::1]:5")
    assert server_endpoint() == TcpEndpoint(host="::1", port=5)


def test_a_variable_that_is_empty_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUADBENCH_HARNESS", "QUADBENCH_MAVEN", CONFIG_VARIABLE):
        monkeypatch.setenv(name, "")
    assert path_variable("QUADBENCH_HARNESS") is None
    assert web_variable("QUADBENCH_MAVEN") is None
    assert config_path() == Path("~/.qai_hub/client.ini").expanduser()


def test_an_attempt_acts_for_the_owner_of_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUADBENCH_OWNER", "ben@desk-2")
    assert user_and_host() == "ben@desk-2"
    monkeypatch.setenv("QUADBENCH_OWNER", "")
    assert user_and_host() != "ben@desk-2"


def test_a_pool_is_that_of_the_variable_or_of_the_users_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named, own = tmp_path / "named", tmp_path / ".quadbench" / "pool" / "condor_config"
    own.parent.mkdir(parents=True)
    for path in (named, own):
        path.touch()
    monkeypatch.setenv("HOME", str(tmp_path))
    for value, path in ((str(named), named), ("", own)):
        monkeypatch.setenv("CONDOR_CONFIG", value)
        assert this_pool().configuration == path


def test_the_environment_is_read_in_one_place() -> None:
    """What reads it elsewhere asks for nothing of the user's: it hands it on to children, or sets what libraries read."""
    root = Path(quadbench.__path__[0])
    others = {"cli/__init__.py", "compile/litert.py", "devices/process_marks.py", "host.py", "spec/variables.py"}
    others |= {"farm/condor.py"}
    readers = {str(path.relative_to(root)) for path in root.rglob("*.py") if "os.environ" in path.read_text()}
    assert readers == others


def test_where_nothing_but_ascii_can_be_written_the_rest_is_written_out() -> None:
    """A locale of a bare container must not cost a result."""
    program = "import sys; from quadbench.cli import console; print('2.1\\xd7', file=console.CheckedStream(sys.stdout))"
    plain = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, **plain}, capture_output=True, check=True)
    assert result.stdout == b"2.1\\xd7\n"
