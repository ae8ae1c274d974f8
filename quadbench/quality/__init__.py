"""Quality: images, latents and noise predictions, each against its reference -> scores that say what they are."""

from quadbench.quality.compared import compare_folders, compare_run, score_images
from quadbench.quality.metrics import METRICS, ImagePair
from quadbench.quality.networks import GivenNetwork, parse_network
from quadbench.quality.run import score_folders, score_run
from quadbench.quality.trajectories import compare_latents

__all__ = [
    "METRICS",
    "GivenNetwork",
    "ImagePair",
    "compare_folders",
    "compare_latents",
    "compare_run",
    "parse_network",
    "score_folders",
    "score_images",
    "score_run",
]
