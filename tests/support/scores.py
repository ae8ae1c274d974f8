"""Scores: the metrics that need nothing but pixels, and the one score that is there."""

from quadbench.artifacts.run_record import Score

PIXELS = ("psnr", "ssim")


def only(scores: tuple[Score, ...]) -> Score:
    assert len(scores) == 1
    return scores[0]
