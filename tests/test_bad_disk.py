"""A results folder that is full, read-only or gone, at every stage of a run: a reason is given, and what was stored is whole."""

import os
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.small_disk import on_small_disk

from quadbench.artifacts import Bundle, Stored
from quadbench.harness.program import OVERRIDE

# What each stage begins with: the step of the observer, and what of the folder is taken away so that it has work to do.
STAGES = {"build": "bundles", "compile": "compiled", "push": "devices/local/objects", "measure": ""}
_CODE = """
import contextlib, io, shutil, sqlite3
from quadbench.cli import main
from quadbench.cli.console import RunConsole
from quadbench.results.layout import Layout
from quadbench.results.runs import load_run
recipe, bundles, stage, again, fault = {recipe!r}, {bundles!r}, {stage!r}, {again!r}, {fault!r}
results = disk / 'results'
def run():
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(['run', recipe, '--devices', 'local', '--results', str(results)])
    return code, ' '.join(said.getvalue().split())
def count():
    with contextlib.closing(sqlite3.connect(results / 'quadbench.sqlite')) as database:
        assert database.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
        return database.execute('SELECT count(*) FROM records').fetchone()[0]
shutil.copytree(bundles, results / 'bundles')
assert run()[0] == 0
stored = count()
if again:
    shutil.rmtree(results / again)
def spoil():
    match fault:
        case 'full': fill()
        case 'read-only': seal()
        case 'gone': results.rename(disk / 'elsewhere')
done = []
def strike(name):
    if name == stage and not done:
        done.append(name)
        spoil()
step, launch = RunConsole.step, RunConsole.launch
class Struck(RunConsole):
    def step(self, stage, detail):
        strike(stage)
        super().step(stage, detail)
        strike('push' if stage == 'harness' and not again == 'compiled' else '')
    def launch(self, *words):
        strike('measure')
        super().launch(*words)
import quadbench.cli.run
quadbench.cli.run.RunConsole = Struck
code, said = run()
quadbench.cli.run.RunConsole = RunConsole
print(code, 'Traceback' in said, said)
if fault == 'full':
    (disk / 'filler').unlink()
if fault == 'read-only':
    subprocess.run(['mount', '-o', 'remount,rw', str(disk)], check=True)
if fault == 'gone':
    shutil.rmtree(results, ignore_errors=True)
    (disk / 'elsewhere').rename(results)
after = count()
assert stored <= after, (stored, after)
code, said = run()
print(code, count() - after, said if code else '')
load_run(Layout(results))
print([str(path) for path in results.rglob('*') if '.tmp' in path.name or path.suffix == '.part'])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", ["full", "read-only", "gone"])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_says_what_is_wrong_with_its_folder_and_spoils_nothing(
    stage: str, fault: str, tiny_recipe: Path, tiny_bundle: Stored[Bundle], harness: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv(OVERRIDE, str(harness))
    bundles = shutil.copytree(tiny_bundle.folder, tmp_path / "bundles" / tiny_bundle.folder.name).parent
    code = _CODE.format(recipe=str(tiny_recipe), bundles=str(bundles), stage=stage, again=STAGES[stage], fault=fault)
    first, second, left = on_small_disk(tmp_path / "disk", code, size="300m").splitlines()[-3:]
    exit_code, is_traceback, said = first.split(" ", 2)
    assert (is_traceback, second.split()[:2], left) == ("False", ["0", "3"], "[]"), first + second
    assert int(exit_code) in (3, 5, 6), first
    assert "error: " in said or "FAILED" in said
    assert any(
        word in said
        for word in ("is full", "No space left", "Read-only", "read-only", "cannot be written", "No such file", "cannot write")
    )
    assert os.path.exists(tiny_recipe)  # noqa: PTH110
