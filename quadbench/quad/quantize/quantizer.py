"""Quantizer: a float graph and its feeds -> its ranges, and its QDQ form in any number of bits. It takes no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx

from quadbench.artifacts import LORA_PREFIX
from quadbench.host import give_back
from quadbench.quad.divergence import spread
from quadbench.quad.quantize.calibration import Feed, observe_ranges
from quadbench.quad.quantize.encodings import Encoding
from quadbench.quad.quantize.mixed import EncodingNoise, encoding_noise, least_noisy
from quadbench.quad.quantize.qdq import activation_encodings, encoding_sources, quantize_graph

NOISE_SAMPLES = 8  # of the calibration feeds, spread evenly


class Calibrated:
    """A float graph with the range of each of its tensors. The noise of 8 bits is measured when it is first asked for."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
        self.model = model
        self.ranges = observe_ranges(model, feeds)
        give_back()
        self._few = [feeds[i] for i in spread(len(feeds), NOISE_SAMPLES)]

    @cached_property
    def noise(self) -> tuple[EncodingNoise, ...]:
        """The noise of each activation encoding in 8 bits, on NOISE_SAMPLES of the feeds. LoRA weights are no activations."""
        narrow = activation_encodings(self.model, self.ranges, dtype="uint8")
        sources = encoding_sources(self.model, self.ranges)
        own = {name: narrow[name] for name, source in sources.items() if name == source and not name.startswith(LORA_PREFIX)}
        return encoding_noise(self.model, own, self._few)


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A QDQ graph and the encodings that it was written with. `noise` chose their bits; it is empty if they all have the same."""

    model: onnx.ModelProto
    activations: dict[str, Encoding]
    noise: tuple[EncodingNoise, ...]


def quantized(calibrated: Calibrated, *, int8_percent: int = 0, lora: Mapping[str, Encoding] | None = None) -> Quantized:
    """Write the QDQ form of a float graph, with 8 bits for `int8_percent` % of its activation encodings, the least noisy."""
    model = calibrated.model
    noise = calibrated.noise if 0 < int8_percent < 100 else ()
    encodings = activation_encodings(
        model,
        calibrated.ranges,
        dtype="uint8" if int8_percent == 100 else "uint16",
        exceptions=dict.fromkeys(least_noisy(noise, int8_percent), "uint8"),
        lora=lora,
    )
    return Quantized(model=quantize_graph(model, encodings, lora), activations=encodings, noise=noise)
