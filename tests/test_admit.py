"""Adapters before a built bundle: what is said of them, and what is added. Pushing stands in test_pipeline."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from adapter_files import write_kohya  # noqa: E402
from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from quadbench.artifacts import Bundle, Variant  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.manifest import read_manifest, sha256_of  # noqa: E402
from quadbench.quad.adapters import base_of_graph, load_adapter  # noqa: E402
from quadbench.quad.admit import lora_encodings_of  # noqa: E402

Built = tuple[Bundle, Path]


@pytest.fixture
def bundle(tiny_bundle: Built, tmp_path: Path) -> Path:
    """The tiny bundle in a folder of the test's own, so that what is added lies there."""
    import shutil

    return Path(shutil.copytree(tiny_bundle[1], tmp_path / "bundles" / tiny_bundle[1].name))


@pytest.fixture
def kohya(tiny_recipe: Path, tiny_bundle: Built, tmp_path: Path) -> Path:
    """The recipe's first adapter under another name and in kohya's format."""
    return _kohya(tiny_recipe, tiny_bundle, tmp_path / "Pixel_Art v2.safetensors", times=1.0)


def _kohya(tiny_recipe: Path, tiny_bundle: Built, path: Path, *, times: float) -> Path:
    from adapter_files import Known

    bundle, folder = tiny_bundle
    shapes = {name: tuple(tensor.shape) for name, tensor in load_file(folder / _files(bundle, "first")[1]).items()}
    adapter = load_adapter("first", tiny_recipe.parent / "adapters/first", base_of_graph(shapes))
    return write_kohya(path, {s: Known(down=p.down, up=p.up * times, alpha=None) for s, p in adapter.pairs.items()})


def _files(bundle: Bundle, name: str) -> tuple[str, str]:
    found = {adapter.variant: adapter.file.path for adapter in bundle.adapters if adapter.name == name}
    return found[Variant.SHARED], found[Variant.FLOAT]


def test_an_admitted_adapter_is_in_the_new_bundle_and_bound_to_the_base(
    tiny_bundle: Built, bundle: Path, kohya: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["adapter", "admit", str(kohya), "--bundle", str(bundle), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["name"], answer["verdict"]) == ("pixel-art-v2", "admitted")
    assert answer["base"] == {"graph": tiny_bundle[0].base.graph, "profile": tiny_bundle[0].base.profile}
    extended, folder = read_manifest(Path(answer["bundle"]), Bundle), Path(answer["bundle"])
    assert (extended.graphs, extended.base) == (tiny_bundle[0].graphs, tiny_bundle[0].base)
    for path in _files(extended, "pixel-art-v2"):
        with safe_open(folder / path, framework="np") as file:
            assert file.metadata() == {"base_graph": extended.base.graph, "base_profile": extended.base.profile}


def test_the_same_weights_in_another_format_become_the_same_integers(bundle: Path, kohya: Path, tiny_bundle: Built) -> None:
    assert main(["adapter", "admit", str(kohya), "--bundle", str(bundle), "--name", "again"]) == 0
    (folder,) = set(bundle.parent.iterdir()) - {bundle}
    old, new = (folder / _files(read_manifest(folder, Bundle), name)[0] for name in ("first", "again"))
    assert sha256_of(old) == sha256_of(new)


def test_a_louder_adapter_is_not_added_and_the_answer_says_what_to_do(
    tiny_recipe: Path, tiny_bundle: Built, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loud = _kohya(tiny_recipe, tiny_bundle, tmp_path / "loud.safetensors", times=6.0)
    assert main(["adapter", "admit", str(loud), "--bundle", str(bundle)]) == 2
    said = capsys.readouterr()
    assert "loud: needs distillation; even gauge-aligned" in said.out
    assert "adapter 'loud' was not added: needs distillation. Hint: " in " ".join(said.err.split())
    assert list(bundle.parent.iterdir()) == [bundle]


def test_inspect_gives_the_verdict_without_adding_anything(bundle: Path, kohya: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "inspect", str(kohya), "--bundle", str(bundle), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["format"], answer["problems"], answer["admission"]["verdict"]) == ("kohya", [], "admitted")
    assert answer["admission"]["bundle"] is None
    assert list(bundle.parent.iterdir()) == [bundle]


def test_the_profiles_digest_is_that_of_its_encodings(bundle: Path) -> None:
    from quadbench.manifest import digest_of

    profile = json.loads((bundle / "profile.json").read_text())
    assert profile["digest"] == digest_of(profile["encodings"])
    assert lora_encodings_of(read_manifest(bundle, Bundle), bundle).keys() == profile["encodings"]["lora"].keys()


def test_a_name_that_no_adapter_can_have_is_refused(bundle: Path, kohya: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "admit", str(kohya), "--bundle", str(bundle), "--name", "Pixel Art"]) == 2
    assert "'Pixel Art' is no name for an adapter" in " ".join(capsys.readouterr().err.split())
