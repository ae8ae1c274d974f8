"""Ctrl-C and the signals that end a command: whenever they come, it ends with their exit code and a line, not a traceback."""

import subprocess
import sys

import pytest
from support.forked import Forked
from support.sentences import reads

NOT_IGNORED = "signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # as it is where the tests were started by nohup


@pytest.mark.parametrize("module", ["rich.table", "quadbench.quad.admit"])
@pytest.mark.parametrize("is_of_c", [False, True])
def test_ctrl_c_while_something_is_imported_ends_without_a_traceback(module: str, is_of_c: bool) -> None:
    """Also where a library in C makes an ImportError of it."""
    reads(_signalled("SIGINT", module, is_of_c=is_of_c), 130)


@pytest.mark.parametrize(("how", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_as_ctrl_c_does(how: str, code: int) -> None:
    reads(_signalled(how, "rich.table"), code, how)
    reads(_signalled(how, "quadbench.quad.admit"), code, how)


def test_ctrl_c_before_anything_is_imported_ends_without_a_traceback() -> None:
    code = """
import os, signal, sys
class Interrupt:
    def find_spec(name, path, target=None):
        if name == "quadbench.cli.commands":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt)
from quadbench.__main__ import start
sys.exit(start())
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 130
    reads(result.stderr)


def test_a_signal_that_was_turned_off_stays_off() -> None:
    code, said = _signalled("SIGHUP", "rich.table", before="signal.signal(signal.SIGHUP, signal.SIG_IGN)")
    assert (code, "'nothing'" in said) == (2, True)


def _signalled(how: str, module: str, *, is_of_c: bool = False, before: str = NOT_IGNORED) -> tuple[int | None, str]:
    """Return how a command ends that gets a signal while it imports a module, and what it says.

    Only what belongs to the commands themselves is imported anew.
    """
    code = f"""
import os, signal, sys
for name in [name for name in sys.modules if name == {module!r} or name.startswith("quadbench.cli")]:
    del sys.modules[name]
class Interrupt:
    def find_spec(name, path, target=None):
        if name == {module!r}:
            try:
                os.kill(os.getpid(), signal.{how})
            except KeyboardInterrupt as interrupt:
                if {is_of_c}:
                    raise ImportError("initialization failed") from interrupt
                raise
signal.signal(signal.SIGINT, signal.default_int_handler)
{before}
sys.meta_path.insert(0, Interrupt)
from quadbench.cli import main
sys.exit(main(["adapter", "inspect", "nothing"]))
"""
    with Forked(code) as command:
        _, said = command.communicate()
        return command.returncode, said
