"""Inspection of adapter files, right and wrong ones, by `quadbench adapter inspect` too."""

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from support.adapter_files import draw_pairs, kohya_tensors, write_kohya  # noqa: E402
from support.sentences import reads, says  # noqa: E402
from support.tiny_model import tiny_unet  # noqa: E402

from quadbench import zoo  # noqa: E402
from quadbench.cli import main  # noqa: E402
from quadbench.quad.adapters.inspection import inspect_adapter  # noqa: E402
from quadbench.quad.adapters.loading import sites_of_unet  # noqa: E402

UNET = tiny_unet()


def test_sites_are_counted_by_kind_with_their_parameters(tmp_path: Path) -> None:
    known = draw_pairs(UNET)
    inspection = inspect_adapter(write_kohya(tmp_path / "style.safetensors", known))
    assert {row.kind for row in inspection.kinds} == {"attention", "feed-forward", "projection", "convolution", "other"}
    assert sum(row.sites for row in inspection.kinds) == inspection.sites == len(known)
    assert inspection.parameters == sum(pair.down.numel() + pair.up.numel() for pair in known.values())
    assert (inspection.int16_bytes, inspection.int8_bytes) == (2 * inspection.parameters, inspection.parameters)
    assert inspection.ranks.keys() == {2, 3, 4}
    scales = [(k.alpha or k.down.shape[0]) / k.down.shape[0] for k in known.values()]
    assert inspection.scale == pytest.approx((min(scales), max(scales)))


def test_kinds_are_told_from_dotted_names_too() -> None:
    inspection = inspect_adapter(zoo.adapter_folder("remove-object"))
    assert {row.kind: row.sites for row in inspection.kinds}.keys() == {"attention", "feed-forward", "projection", "convolution"}
    assert inspection.format == "peft"
    reads(inspection.because, "adapter_config.json")


def test_a_weight_that_stands_out_is_found(tmp_path: Path) -> None:
    known = draw_pairs(UNET)
    site = "mid_block.attentions.0.proj_in"
    known[site].down[0, 0] = 50.0
    outlier = inspect_adapter(write_kohya(tmp_path / "style.safetensors", known)).outlier
    assert outlier
    assert (outlier.site, outlier.side) == (site.replace(".", "_"), "down")
    weights = known[site].down
    assert outlier.ratio == pytest.approx(float(weights.abs().max() / weights.square().mean().sqrt()))


def test_the_file_inside_a_peft_folder_stands_for_the_folder() -> None:
    inspection = inspect_adapter(zoo.adapter_folder("restyle") / "adapter_model.safetensors")
    assert (inspection.format, inspection.path) == ("peft", str(zoo.adapter_folder("restyle")))


def test_a_file_with_problems_is_described_all_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "odd.safetensors"
    extra = {"lora_unet_conv_in.lokr_w1": torch.ones(2, 2), "lora_te_text_model.lora_up.weight": torch.ones(2, 2)}
    save_file(kohya_tensors(draw_pairs(UNET)) | extra, path)
    assert main(["adapter", "inspect", str(path), "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["sites"] == len(draw_pairs(UNET))
    reads([problem["message"].split(":")[0] for problem in answer["problems"]], "LoKr")


def test_an_adapter_of_another_model_is_a_problem(tmp_path: Path) -> None:
    inspection = inspect_adapter(zoo.adapter_folder("restyle"), sites_of_unet(UNET))
    (problem,) = inspection.problems
    says(problem.message, "restyle", 46, 62, "down_blocks")


def test_what_a_person_reads_is_in_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "inspect", str(zoo.adapter_folder("restyle")), "--recipe", "quickstart"]) == 0
    said = capsys.readouterr().out
    says(said, "restyle", "adapter_config.json", "700,928", "1.34", "INT16", "0.67", "INT8")
    says(said.rstrip().splitlines()[-2])


def test_what_cannot_be_mapped_into_memory_is_no_adapter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["adapter", "inspect", "/proc/self/mem"]) == 2
    says(capsys.readouterr().err, "/proc/self/mem", "Input/output error")
