"""Code: the digests of a stage's code name every module of quadbench that the stage can run, and no other."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.sentences import raising

from quadbench.results import digests
from quadbench.results.digests import code_digests, sha256_of

Names = Callable[[str], set[str]]


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    """Return a function: the source of `quadbench.stage` -> the names of the modules that its digests have.

    Beside it the package has `steps`, whose __init__ is empty, with `first`, which imports `second`, and `second`.
    """
    package = tmp_path / "quadbench"
    (package / "steps").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "steps/__init__.py").write_text("")
    (package / "steps/first.py").write_text("from quadbench.steps.second import number\n")
    (package / "steps/second.py").write_text("number = 2\n")
    monkeypatch.setattr(digests, "PACKAGE", package)

    def names_of(source: str) -> set[str]:
        (package / "stage.py").write_text(source)
        code_digests.cache_clear()
        return set(code_digests("quadbench.stage"))

    yield names_of
    code_digests.cache_clear()


@pytest.mark.parametrize("statement", ["import quadbench.steps.first", "from quadbench.steps.first import number"])
def test_imports_of_imports_count(names: Names, statement: str) -> None:
    assert names(statement) == {"quadbench.stage", "quadbench.steps.first", "quadbench.steps.second"}


def test_an_import_within_a_function_counts(names: Names) -> None:
    source = "def run():\n    if True:\n        from quadbench.steps.second import number\n        return number\n"
    assert names(source) == {"quadbench.stage", "quadbench.steps.second"}


def test_a_module_that_is_imported_from_its_package_counts(names: Names) -> None:
    assert names("from quadbench.steps import second") == {"quadbench.stage", "quadbench.steps.second"}


def test_a_name_that_is_imported_from_a_package_counts_as_the_package(names: Names) -> None:
    assert names("from quadbench.steps import name") == {"quadbench.stage", "quadbench.steps"}


def test_imports_for_type_checkers_alone_do_not_count(names: Names) -> None:
    source = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from quadbench.steps.first import number\n"
    assert names(source) == {"quadbench.stage"}


def test_other_packages_do_not_count(names: Names) -> None:
    assert names("import json\nfrom pathlib import Path\nimport quadbenchmark\n") == {"quadbench.stage"}


def test_modules_that_import_each_other_end(names: Names) -> None:
    assert names("import quadbench.stage") == {"quadbench.stage"}


@pytest.mark.parametrize("name", ["quadbench.absent", "quadbench.results.absent"])
def test_a_module_that_does_not_exist_is_refused(name: str) -> None:
    with raising(ModuleNotFoundError, name):
        code_digests(name)


def test_an_import_of_a_module_that_does_not_exist_is_refused(names: Names) -> None:
    with raising(ModuleNotFoundError, "quadbench.absent"):
        names("from quadbench.absent import name")


def test_a_digest_is_that_of_the_source() -> None:
    assert code_digests("quadbench.quad.build")["quadbench.quad.build"] == sha256_of(digests.PACKAGE / "quad/build.py")


def test_a_build_runs_a_constant_of_the_linter_and_nothing_of_quality() -> None:
    built_by = code_digests("quadbench.quad.build")
    assert "quadbench.lint.rules" in built_by
    assert not any(name.startswith("quadbench.quality") for name in built_by)
