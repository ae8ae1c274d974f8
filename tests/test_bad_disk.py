"""A results folder that is full, read-only or gone at any stage of a run: the message says what it is, and nothing is lost."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.small_disk import on_small_disk
from support.spoilt_disk import STAGES

from quadbench.artifacts import StoredBundle
from quadbench.harness.program import OVERRIDE

_CODE = """
from support.spoilt_disk import Disk, tell
spoilt = Disk(disk, Path({recipe!r}), Path({bundles!r}), fill)
for stage in {stages!r}:
    print('@', tell(spoilt.spoilt(stage, {fault!r})))
"""
_SAYS = {
    "full": ("is full, 0.0 MB are left", "database or disk is full", "has 0.0 MB free"),
    "read-only": ("Read-only file system", "attempt to write a readonly database", "is read-only"),
    "gone": ("results' is gone: it was moved or removed while it was in use",),
}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", _SAYS)
def test_a_run_says_what_is_wrong_with_its_folder_and_loses_nothing(
    fault: str, tiny_recipe: Path, tiny_bundle: StoredBundle, harness: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE, str(harness))
    bundles = shutil.copytree(tiny_bundle.folder, tmp_path / "bundles" / tiny_bundle.folder.name).parent
    code = _CODE.format(recipe=str(tiny_recipe), bundles=str(bundles), stages=list(STAGES), fault=fault)
    said = on_small_disk(tmp_path / "disk", code, size="400m").splitlines()
    ends = [json.loads(line.removeprefix("@ ")) for line in said if line.startswith("@ ")]
    assert [end["stage"] for end in ends] == list(STAGES)
    for end in ends:
        # A device cannot be written by itself: `local` keeps what is pushed to it in the results folder.
        exit_code = 5 if end["stage"] == "push" and fault != "gone" else 3
        assert (end["exit_code"], end["lost"], end["next_exit_code"], end["left"]) == (exit_code, 0, 0, []), end
        assert "Traceback" not in end["said"], end
        assert any(words in end["said"] for words in _SAYS[fault]), end
        assert f"{tmp_path}/disk/results" in end["said"], end
        assert "Hint: " in end["said"], end
