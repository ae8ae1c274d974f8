"""Quality: images, latents and noise predictions, each against its reference -> scores that say what they are."""

from quadbench.quad.quality.compared import compare_folders, compare_run
from quadbench.quad.quality.latents import compare_latents
from quadbench.quad.quality.metric import Pair
from quadbench.quad.quality.metrics import METRICS
from quadbench.quad.quality.score import score_images
from quadbench.quad.quality.weights import GivenWeights, parse_weights

__all__ = [
    "METRICS",
    "GivenWeights",
    "Pair",
    "compare_folders",
    "compare_latents",
    "compare_run",
    "parse_weights",
    "score_images",
]
