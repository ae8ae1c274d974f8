"""macOS as a desk for attached phones, in processes that pretend to be macOS (`support/pretended_macos`). No Mac was at hand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.stored_run import RUN, stored_below

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


def test_every_module_is_imported() -> None:
    lines = """
import importlib, pkgutil, quadbench
for module in pkgutil.walk_packages(quadbench.__path__, "quadbench."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print("all")
"""
    result = pretended("-W", "ignore", "-c", lines)
    assert result.stdout.split() == ["all"], result.stderr


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the results of a run."""
    folder = tmp_path_factory.mktemp("desk")
    stored_below(folder)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        "--version",
        "--help",
        "devices",
        "recipe list",
        "recipe check quickstart",
        "targets",
        "runs",
        f"show {RUN}",
        f"report {RUN}",
        "history",
        "run quickstart --devices s25 --dry-run",
    ],
)
def test_what_a_desk_does_works(line: str, desk: Path) -> None:
    result = pretended("-m", "quadbench", *line.split(), cwd=desk)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr


def test_stored_sides_are_compared(desk: Path) -> None:
    result = pretended("-m", "quadbench", "compare", RUN, "--b", "variant=per-graph", cwd=desk)
    assert result.returncode == 0, result.stderr
    assert "restyle" in result.stdout


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
