"""On macOS, and on a release of Linux without adbd, tests that need what is lacking are skipped with quadbench's own message."""

import re
import shutil
from collections.abc import Generator

import pytest

from quadbench.host import IS_LINUX, find_program

_MESSAGES = [
    *([] if IS_LINUX else [r"[^\n]{1,80} need Linux; this machine runs \w+", r"dlsym\([^)]*\): symbol not found"]),
    *([] if find_program("adbd") else [r"needs [\w, ]*\badbd\b[\w, ]*, not found on PATH"]),
    *([] if shutil.which("condor_master") else [r"a farm needs HTCondor: \w+ is not found"]),
]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report a failure as a skip if its text has the message of something that this machine lacks."""
    report = yield
    if _MESSAGES and report.failed:
        text = " ".join(f"{report.longrepr}\n{report.capstderr}\n{report.capstdout}".split())
        if match := re.search("|".join(_MESSAGES), text):
            report.outcome, report.longrepr = "skipped", (report.fspath, report.location[1] or 0, f"Skipped: {match[0]}")
    return report
