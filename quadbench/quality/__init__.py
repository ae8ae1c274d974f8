"""Quality: images, latents and noise predictions, each against its reference -> scores that say what they are."""

from quadbench.quality.compared import compare_folders, compare_run
from quadbench.quality.latents import compare_latents
from quadbench.quality.metric import Pair
from quadbench.quality.metrics import METRICS
from quadbench.quality.networks import GivenWeights, parse_weights
from quadbench.quality.run import score_folders, score_run
from quadbench.quality.score import score_images

__all__ = [
    "METRICS",
    "GivenWeights",
    "Pair",
    "compare_folders",
    "compare_latents",
    "compare_run",
    "parse_weights",
    "score_folders",
    "score_images",
    "score_run",
]
