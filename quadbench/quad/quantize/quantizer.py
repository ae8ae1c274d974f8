"""Quantizer: a float graph and its feeds -> its ranges, and its QDQ form in any number of bits. It takes no torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from quadbench.artifacts import Int8Share
from quadbench.host import give_back
from quadbench.quad.divergence import spread
from quadbench.quad.quantize.calibration import Feed, float_tensors, observe_ranges
from quadbench.quad.quantize.encodings import Encoding, Range
from quadbench.quad.quantize.estimators import PLAIN_RULES, RangeRule
from quadbench.quad.quantize.histograms import observe_histograms
from quadbench.quad.quantize.layers import base_layers, int8_share
from quadbench.quad.quantize.mixed import LayerNoise, layer_noise, least_noisy
from quadbench.quad.quantize.qdq import activation_encodings, encoding_sources, quantize_graph

NOISE_SAMPLES = 8  # of the calibration feeds, spread evenly


class Observed:
    """A float graph and what was seen of its tensors over some feeds. Values are counted when that is first asked for."""

    def __init__(self, model: onnx.ModelProto, feeds: Sequence[Feed]) -> None:
        self.model, self.feeds = model, feeds
        self.sources = encoding_sources(model, float_tensors(model))
        self.seen = observe_ranges(model, feeds)
        give_back()

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """The histogram of each tensor over what was seen of it."""
        counts = observe_histograms(self.model, self.seen, self.feeds)
        give_back()
        return counts


class Calibrated:
    """A float graph with the ranges of its tensors. The noise of 8 bits is measured when it is first asked for."""

    def __init__(self, observed: Observed, rules: Mapping[str, RangeRule] = PLAIN_RULES) -> None:
        self.model, self.sources = observed.model, observed.sources
        self._observed, self._rules = observed, rules

    def ranges(self, dtype: str) -> dict[str, Range]:
        """Return the range of each float tensor for an encoding of this type, by the rule of this type."""
        rule, seen = self._rules[dtype], self._observed.seen
        counts = self._observed.counts if rule.counts_values else {}
        return {name: rule.range_of(values, counts.get(name), dtype) for name, values in seen.items()}

    def encodings(self, dtype: str, lora: Mapping[str, Encoding] | None = None) -> dict[str, Encoding]:
        """Return the encodings of all activations in one type."""
        return activation_encodings(self.model, self.ranges(dtype), dtype=dtype, lora=lora)

    @cached_property
    def noise(self) -> tuple[LayerNoise, ...]:
        """The noise of each of the base's layers in 8 bits, on NOISE_SAMPLES of the feeds, the first to take them first."""
        feeds, layers = self._observed.feeds, base_layers(self.model, self.sources)
        few = [feeds[i] for i in spread(len(feeds), NOISE_SAMPLES)]
        return layer_noise(self.model, layers, self.encodings("uint8"), few)


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """A QDQ graph and the encodings that it was written with, none where activations stay float.

    `noise` chose their bits; it is empty if they all have the same.
    """

    model: onnx.ModelProto
    activations: dict[str, Encoding]
    noise: tuple[LayerNoise, ...]
    int8: Int8Share


def weights_quantized(model: onnx.ModelProto, *, lora: Mapping[str, Encoding] | None = None) -> Quantized:
    """Write the form of a float graph whose weights and LoRA inputs are integers and whose activations are float."""
    sources = encoding_sources(model, float_tensors(model))
    share = int8_share(model, sources, {}, lora or {})
    return Quantized(model=quantize_graph(model, {}, lora), activations={}, noise=(), int8=share)


def quantized(calibrated: Calibrated, *, int8_percent: int = 0, lora: Mapping[str, Encoding] | None = None) -> Quantized:
    """Write the QDQ form of a float graph, `int8_percent` % of its parameters in W8A8: those of the least noisy layers.

    At 100 % all activations have 8 bits, also those between layers.
    """
    model, sources, wide = calibrated.model, calibrated.sources, calibrated.encodings("uint16", lora)
    noise = calibrated.noise if 0 < int8_percent < 100 else ()
    chosen = set(sources.values()) if int8_percent == 100 else least_noisy(noise, int8_percent)
    narrow = calibrated.encodings("uint8", lora) if chosen else wide
    encodings = {name: (narrow if sources[name] in chosen else wide)[name] for name in wide}
    return Quantized(
        model=quantize_graph(model, encodings, lora),
        activations=encodings,
        noise=noise,
        int8=int8_share(model, sources, encodings, lora or {}),
    )
