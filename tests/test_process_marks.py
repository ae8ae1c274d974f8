"""Leftovers: what carries a mark is ended, whatever it is doing when it is looked for."""

import subprocess
import time
from pathlib import Path

from quadbench.devices.process_marks import VARIABLE, find_marked, kill_marked_processes


def test_a_process_that_replaces_its_program_without_end_is_ended(tmp_path: Path) -> None:
    """While the kernel replaces a program, the process shows no environment: about one look in twenty meets it so."""
    program = tmp_path / "again"
    program.write_text('#!/bin/sh\nexec "$0"\n')
    program.chmod(0o755)
    for number in range(100):
        mark = f"{tmp_path}#{number}#"
        with subprocess.Popen([program], env={VARIABLE: mark}) as process:
            time.sleep(0.01)
            kill_marked_processes(mark)
            try:
                assert process.wait(5) == -9
            finally:
                process.kill()


def test_a_process_without_an_environment_is_nobodys(tmp_path: Path) -> None:
    with subprocess.Popen(["/bin/sleep", "60"], env={}) as process:
        assert find_marked(f"{tmp_path}#") == []
        assert process.poll() is None
        process.kill()
