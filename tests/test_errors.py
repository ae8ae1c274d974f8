"""Errors that imports give: a package that is not installed, and faults of the code that are no such thing."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from support.sentences import raising, says

from quadbench.cli import main
from quadbench.errors import MissingDependencyError, nearest, requires_package


def test_a_package_that_is_not_installed_is_named_with_what_needs_it() -> None:
    with (
        raising(MissingDependencyError, "no_such_package"),
        requires_package("drawing", hint="pip install it"),
    ):
        import no_such_package  # noqa: F401


def test_a_circular_import_is_no_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "circle_a.py").write_text("from circle_b import b\na = 1\n")
    (tmp_path / "circle_b.py").write_text("from circle_a import a\nb = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="circular import"), requires_package("drawing", hint="pip install it"):
        import circle_a  # noqa: F401


def test_a_module_of_our_own_is_no_missing_package() -> None:
    with (
        pytest.raises(ModuleNotFoundError, match=r"quadbench\.no_such_module"),
        requires_package("drawing", hint="pip install it"),
    ):
        import quadbench.no_such_module  # noqa: F401


def test_a_command_does_not_take_a_broken_import_inside_quad_for_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "quadbench.quad.sensitivity", ModuleType("quadbench.quad.sensitivity"))
    with pytest.raises(ImportError, match="cannot import name 'analyse'"):
        main(["sensitivity", "quickstart"])


def test_a_command_that_lacks_a_package_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "quadbench.quad.sensitivity", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["sensitivity", "quickstart"]) == MissingDependencyError.exit_code
    said = " ".join(capsys.readouterr().err.split())
    says(said, "torch", "quadbench[quad]")


def test_swapped_letters_are_taken_for_a_slip_before_another_letter_is() -> None:
    assert nearest("s52", ["s24", "s25", "s26", "tabs11"]) == ["s25"]
    assert nearest("s27", ["s24", "tabs11"]) == ["s24"]
    assert nearest("quick", ["s24"]) == []
