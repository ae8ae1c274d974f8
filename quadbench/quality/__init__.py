"""Quality: images, latents and noise predictions, each against its reference -> scores that say what they are."""

from quadbench.quality.compared import compare_folders, compare_run
from quadbench.quality.latents import compare_latents
from quadbench.quality.metric import ImagePair
from quadbench.quality.metrics import METRICS
from quadbench.quality.networks import GivenNetwork, parse_network
from quadbench.quality.run import score_folders, score_run
from quadbench.quality.score import score_images

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
