"""macOS as a desk for attached phones, in processes that pretend to be macOS (`support/pretended_macos`). No Mac was at hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the pretence takes away what Linux has")

# fmt: off
OF_A_MAC = (
    "adapter_formats", "adapters", "ai_hub_requests", "api_page", "build", "change_points", "cli", "compare", "describe_phone",
    "device_profile", "doctor", "elf", "estimators", "first_contact", "first_phone_page", "headline", "history", "host", "kits",
    "kpi", "outside_figures", "recipe", "recording", "report", "report_tables", "verdicts",
)
# fmt: on


def pretended(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run Python with a command line, in a process that pretends to be macOS."""
    paths = os.pathsep.join((str(ROOT / "tests/support/pretended_macos"), str(ROOT)))
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=cwd, env={**os.environ, "PYTHONPATH": paths}
    )


def test_the_pretence_holds() -> None:
    lines = "import os, sys, ctypes; from quadbench import host; print(sys.platform, os.uname().sysname, host.IS_LINUX)"
    assert pretended("-c", lines).stdout.split() == ["darwin", "Darwin", "False"]
    assert "symbol not found" in pretended("-c", "import ctypes; ctypes.CDLL(None).prctl").stderr


def test_every_module_but_migrations_is_imported() -> None:
    lines = """
import importlib, pkgutil, quadbench
for module in pkgutil.walk_packages(quadbench.__path__, "quadbench."):
    if "migrations" not in module.name and not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all")
"""
    result = pretended("-W", "ignore", "-c", lines)
    assert result.stdout.split() == ["all"], result.stderr


@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("recipe", "show"), ("run", "--help")])
def test_commands_that_need_no_device_work(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = pretended("-m", "quadbench", *arguments, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout


@pytest.mark.parametrize("device", ["local", "virtual:s25"])
def test_a_device_that_needs_linux_says_so(device: str, tmp_path: Path) -> None:
    result = pretended("-m", "quadbench", "run", "quickstart", "--devices", device, cwd=tmp_path)
    assert result.returncode != 0
    assert re.search(r"need Linux; this machine runs Darwin", " ".join(result.stderr.split()))
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_the_tests_of_a_mac_pass() -> None:
    files = [f"tests/test_{name}.py" for name in OF_A_MAC]
    result = pretended("-m", "pytest", "-q", "-m", "not slow and not device", "-p", "no:cacheprovider", *files)
    last = result.stdout.splitlines()[-1]
    passed = re.search(r"(\d+) passed", last)
    assert result.returncode == 0, "\n".join(result.stdout.splitlines()[-40:])
    assert passed
    assert int(passed[1]) > 800, last
