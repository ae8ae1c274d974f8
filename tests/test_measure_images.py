"""Images of a launch: fetched, checked, and held against their references."""

import numpy as np
import pytest
from PIL import Image
from support.scripted_harness import GOOD, ITEMS, TASKS, World, launch_of, measured, of_metric
from support.sentences import reads, says

from quadbench.artifacts import ErrorClass, Status, Variant
from quadbench.artifacts.pixels import PSNR_CAP_DB, blend_mask, composite, max_abs_difference, psnr_db
from quadbench.measure.derived_samples import MASKED_PSNR, QUANTIZED_MIN_MEAN_PSNR_DB


def test_images_are_fetched_checked_and_named_relative_to_the_results(world: World) -> None:
    record = measured(world, GOOD)
    assert set(record.images) == {f"{task}/{item}" for task in TASKS for item in ITEMS}
    assert all(world.layout.file(path).is_file() for path in record.images.values())
    psnr = {(s.task, s.item, s.labels["against"]): s.value for s in of_metric(record, "psnr_db")}
    assert len(psnr) == 6
    assert psnr["restyle", "000", "reference"] == PSNR_CAP_DB
    assert psnr["remove-object", "001", "truth"] == pytest.approx(10 * np.log10(255**2 / 16))
    assert [sample.value for sample in of_metric(record, "max_abs_difference")] == [0.0] * 4


def test_a_float_launch_within_two_steps_of_the_reference_is_ok(world: World) -> None:
    assert measured(world, GOOD.replace("paint_all()", "paint_all(change=2)"), launch_of(Variant.FLOAT)).status is Status.OK


def test_a_float_launch_that_computes_wrongly_fails_with_the_worst_item(world: World) -> None:
    script = GOOD.replace("paint_all()", 'paint_all({"restyle/001": {"change": 9}}, change=1)')
    record = measured(world, script, launch_of(Variant.FLOAT))
    assert record.status is Status.FAILED
    reads(record.reason, "restyle/001", "9/255", "2/255", 1, 4)


def test_a_quantized_launch_may_differ(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(everywhere=20)"))
    assert record.status is Status.OK
    assert {sample.value for sample in of_metric(record, "max_abs_difference")} == {20.0}


def test_a_quantized_launch_that_paints_another_picture_is_fast_and_wrong(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(everywhere=120)"))
    assert record.status is Status.FAILED
    assert record.reason is not None
    says(record.reason, "6.5")


def test_an_inpainted_image_is_judged_within_its_mask_alone(world: World) -> None:
    """Everything outside the mask is the reference's own, so that the whole image is near it, however wrong the rest is."""
    wrong = "".join(f'"remove-object/{item}": {{"change": 120}}, ' for item in ITEMS)
    record = measured(world, GOOD.replace("paint_all()", f"paint_all({{{wrong}}})"), launch_of(tasks=("remove-object",)))
    whole, masked = (
        [s.value for s in of_metric(record, metric) if s.labels["against"] == "reference"] for metric in ("psnr_db", MASKED_PSNR)
    )
    assert min(whole) > QUANTIZED_MIN_MEAN_PSNR_DB > max(masked)
    assert record.status is Status.FAILED
    assert record.reason is not None
    says(record.reason, f"{max(masked):.1f}")


def test_an_image_of_another_size_fails_the_launch(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", "paint_all(size=(4, 6))"))
    reads(record.reason, "restyle/000", 4, 6, 8)


def test_an_image_that_changed_on_the_way_fails_the_launch(world: World) -> None:
    record = measured(world, GOOD.replace("paint_all()", 'paint_all(sha256="0" * 64)'))
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.DEVICE)
    assert record.reason is not None
    says(record.reason, "restyle/000", "sha256")


def test_a_reference_that_is_missing_from_the_bundle_is_not_the_harness_to_blame(world: World) -> None:
    harness_script = GOOD.replace("footer()", '(references / "restyle" / "001.png").unlink()\nfooter()')
    record = measured(world, harness_script)
    assert (record.status, record.error_class) == (Status.FAILED, ErrorClass.INFRASTRUCTURE)
    assert record.reason is not None
    says(record.reason, "reference/restyle/001.png")


def test_psnr_of_equal_images_is_capped_and_that_of_others_is_not() -> None:
    black, white = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert psnr_db(black, black) == PSNR_CAP_DB
    assert psnr_db(black, white) == 0.0
    assert psnr_db(black, black + np.uint8(1)) == pytest.approx(48.1308, abs=1e-4)


def test_differences_do_not_wrap_around() -> None:
    assert max_abs_difference(np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)) == 255


@pytest.mark.parametrize(("size", "edge"), [(16, 2), (64, 2), (128, 4), (512, 16)])
def test_a_blend_mask_is_whole_in_the_mask_and_falls_evenly_to_nothing_outside_it(size: int, edge: int) -> None:
    mask = np.zeros((size, size), np.bool_)
    mask[size // 4 : size // 2, size // 4 : size // 2] = True
    blend = np.asarray(blend_mask(mask))
    assert blend[mask].min() == 255
    fall = blend[size // 3, size // 2 - 1 : size // 2 + edge + 1].astype(int)
    assert np.allclose(fall, np.linspace(255, 0, edge + 2), atol=0.5)
    near = np.zeros_like(mask)
    near[size // 4 - edge : size // 2 + edge, size // 4 - edge : size // 2 + edge] = True
    assert blend[~near].max() == 0


def test_compositing_rounds_to_the_nearest_for_every_share_and_value() -> None:
    share, picture = (values.astype(np.uint8) for values in np.meshgrid(np.arange(256), np.arange(256)))
    pictures = np.repeat(picture[..., None], 3, axis=2)
    for original in (0, 77, 255):
        exact = (share / 255)[..., None] * pictures + (1 - share / 255)[..., None] * original
        found = composite(pictures, np.full_like(pictures, original), Image.fromarray(share))
        assert np.abs(found - exact).max() <= 0.5 + 1e-9
