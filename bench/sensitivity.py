"""The sensitivity of a recipe's adapters at 16 and at 8 bits, and what white noise of the same size would score.

    nice python bench/sensitivity.py [--recipe quickstart]

Prints a JSON line for each width, as `quadbench sensitivity --json` gives it, and for each adapter and width the mean
Jensen-Shannon divergence of its rounding and that of white noise which, sample by sample, has the same mean square.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from quadbench.quad.adapters import Adapter
from quadbench.quad.adapters.lora_profile import lora_encodings, lora_ranges
from quadbench.quad.divergence import divergence
from quadbench.quad.prepare import Prepared, prepare
from quadbench.quad.quantize.encodings import dequantize, quantize
from quadbench.quad.sensitivity import UnetSample, samples_of, sensitivity
from quadbench.quad.steps import Steps
from quadbench.recipe import load_recipe


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--recipe", default="quickstart")
    recipe = load_recipe(parser.parse_args().recipe)
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(recipe, Steps(), Path(scratch))
        samples = [sample for task in prepared.tasks for sample in samples_of(task, prepared.visits[task.task.name])]
        for dtype in ("int16", "int8"):
            print(json.dumps(asdict(sensitivity(prepared, dtype=dtype))), flush=True)  # noqa: T201
            for adapter in prepared.adapters.values():
                pairs = list(rounding_and_noise(prepared, adapter, samples, dtype))
                rounding, noise = np.mean(pairs, axis=0)
                print(f"{adapter.name}, {dtype}: rounding {rounding:.3g}, white noise {noise:.3g}", flush=True)  # noqa: T201


def rounding_and_noise(
    prepared: Prepared, adapter: Adapter, samples: Sequence[UnetSample], dtype: str
) -> Iterator[tuple[float, float]]:
    """Yield the divergence of each sample when the adapter is rounded, and when as much noise is added."""
    exact_lora, rng = prepared.feed(adapter), np.random.default_rng(0)
    encodings = lora_encodings(lora_ranges([adapter]), headroom=1.0, dtype=dtype)
    rounded_lora = exact_lora | {name: dequantize(quantize(exact_lora[name], e), e) for name, e in encodings.items()}
    for sample in samples:
        exact = prepared.unet(sample.feed | exact_lora).numpy()
        rounding = divergence(exact, prepared.unet(sample.feed | rounded_lora).numpy())
        yield rounding.js, divergence(exact, exact + rounding.mse**0.5 * rng.standard_normal(exact.shape)).js


if __name__ == "__main__":
    main()
