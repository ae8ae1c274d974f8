"""Launch: the harness and a plan -> what it wrote and how it ended."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.harness_scene import Plan


@dataclass(frozen=True, kw_only=True)
class Heard:
    """One run of the harness."""

    exit_code: int
    events: list[dict[str, Any]]
    stderr: str = field(repr=False)

    def samples(self, metric: str, **wanted: Any) -> list[dict[str, Any]]:
        found = [event for event in self.events if event["event"] == "sample" and event["metric"] == metric]
        return [event for event in found if all(event.get(key) == value for key, value in wanted.items())]

    def error(self) -> str:
        (event,) = [event for event in self.events if event["event"] == "error"]
        assert self.events[-1]["status"] == "FAILED"
        return str(event["message"])


def launch(harness: Path, plan: Plan, *, emulator: Sequence[str] = (), timeout_s: float = 60) -> Heard:
    path = Path(plan["images"]).parent / "plan.json"
    path.write_text(json.dumps(plan))
    command = [*emulator, harness, path]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    return Heard(
        exit_code=result.returncode, events=[json.loads(line) for line in result.stdout.splitlines()], stderr=result.stderr
    )


def endless(harness: Path, plan: Plan, folder: Path) -> tuple[subprocess.Popen[str], Iterator[str]]:
    """A harness that has painted its first image of very many."""
    plan["sequence"] = [{"task": "restyle", "warmup": 0, "iterations": 1_000_000}]
    (folder / "plan.json").write_text(json.dumps(plan))
    process = subprocess.Popen([harness, folder / "plan.json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "end_to_end_ns" in line:
            break
    return process, _closing(process)


def _closing(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    with process.stdout:
        yield from process.stdout
