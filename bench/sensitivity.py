"""The sensitivity of a recipe's adapters at 16 and at 8 bits, and how far it depends on chance and on an adapter's file.

    nice python bench/sensitivity.py [--recipe quickstart] [--factorisations 20]

Prints a JSON line for each width, as `quadbench sensitivity --json` gives it, and for each adapter and width the mean
Jensen-Shannon divergence of its rounding and that of white noise which, sample by sample, has the same mean square.

With `--factorisations` every adapter is also factorised in so many other ways, (T down, up T^-1) with T a random rotation, a
rescaling of the ranks by up to 3.2 either way and another rotation. Every fifth keeps the adapter's name, so its score should be
the file's. The others have names, and so turns, of their own: at most 5 % of their pairs should be told apart. Beside that stands
the SQNR of one rounding: of the file's factors, of these after gauge alignment, of the balanced ones.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from hashlib import blake2b
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from quadbench.quad.adapters.adapter import Adapter, LoraPair
from quadbench.quad.adapters.lora_profile import align_gauge, lora_encodings, lora_ranges
from quadbench.quad.divergence import divergence, score
from quadbench.quad.prepare import BuildSteps, PreparedRecipe, prepare
from quadbench.quad.quantize.encodings import dequantize, quantize
from quadbench.quad.runner import Feed
from quadbench.quad.sensitivity import AdapterSensitivity, UnetSample, adapter_sensitivity, choose_anchor, samples_of, sensitivity
from quadbench.recipe.recipe import load_recipe

WIDTHS = ("int16", "int8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="quickstart", help="a recipe (default: quickstart)")
    parser.add_argument("--factorisations", type=int, default=0, help="so many other factorisations of each adapter (default: 0)")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    with torch.no_grad(), tempfile.TemporaryDirectory() as scratch:
        prepared = prepare(recipe, BuildSteps(), Path(scratch))
        samples = [sample for task in prepared.tasks for sample in samples_of(task, prepared.visits[task.task.name])]
        if options.factorisations:
            tell_of_factorisations(prepared, samples, options.factorisations)
            return
        for dtype in WIDTHS:
            print(json.dumps(asdict(sensitivity(prepared, dtype=dtype))), flush=True)  # noqa: T201
            for adapter in prepared.adapters.values():
                pairs = list(rounding_and_noise(prepared, adapter, samples, dtype))
                rounding, noise = np.mean(pairs, axis=0)
                print(f"{adapter.name}, {dtype}: rounding {rounding:.3g}, white noise {noise:.3g}", flush=True)  # noqa: T201


def rounded(prepared: PreparedRecipe, adapter: Adapter, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the adapter's graph inputs in float, and those rounded once under its own ranges."""
    exact, encodings = prepared.feed(adapter), lora_encodings(lora_ranges([adapter]), headroom=1.0, dtype=dtype)
    return exact, exact | {name: dequantize(quantize(exact[name], e), e) for name, e in encodings.items()}


def rounding_and_noise(
    prepared: PreparedRecipe, adapter: Adapter, samples: Sequence[UnetSample], dtype: str
) -> Iterator[tuple[float, float]]:
    """Yield the divergence of each sample when the file's factors are rounded, and when as much noise is added."""
    rng = np.random.default_rng(0)
    exact_lora, rounded_lora = rounded(prepared, adapter, dtype)
    for sample in samples:
        exact = prepared.unet(sample.feed | exact_lora).numpy()
        rounding = divergence(exact, prepared.unet(sample.feed | rounded_lora).numpy())
        yield rounding.js, divergence(exact, exact + rounding.mse**0.5 * rng.standard_normal(exact.shape)).js


def tell_of_factorisations(prepared: PreparedRecipe, samples: Sequence[UnetSample], count: int) -> None:
    """Print a JSON line for each score, then one for each adapter and width: how many pairs of factorisations are told apart."""
    known: dict[bytes, torch.Tensor] = {}

    def unet(feed: Feed) -> torch.Tensor:
        """Run the U-Net, once for each input: both widths share the float runs."""
        key = blake2b(b"".join(feed[name].tobytes() for name in sorted(feed))).digest()
        if key not in known:
            known[key] = prepared.unet(feed)
        return known[key]

    def once(other: Adapter, dtype: str) -> float | None:
        exact, coarse = rounded(prepared, other, dtype)
        return score([divergence(unet(s.feed | exact).numpy(), unet(s.feed | coarse).numpy()) for s in samples]).sqnr_db

    scores: dict[tuple[str, str], list[AdapterSensitivity]] = {}
    rngs = {name: np.random.default_rng(1) for name in prepared.adapters}
    for number in range(-1, count):
        for name, adapter in prepared.adapters.items():
            other = adapter if number < 0 else factorised(adapter, rngs[name])
            named = other if number % 5 == 4 or number < 0 else replace(other, name=f"{name}-{number}")
            for dtype in WIDTHS:
                one = adapter_sensitivity(named, samples, unet=unet, shapes=prepared.shapes, dtype=dtype, site_inputs=0)
                noise_db = [own.score.noise_db for own in one.inputs]
                say(adapter=name, lora=dtype, number=number, name=named.name, sqnr_db=one.score.sqnr_db, noise_db=noise_db)
                if named is not other:
                    scores.setdefault((name, dtype), []).append(one)
                if number < 0:
                    ways = {
                        "file": adapter,
                        "gauge": align_gauge(adapter, lora_ranges([adapter])),
                        "balanced": adapter.balanced(),
                    }
                    say(adapter=name, lora=dtype, rounded_once={way: once(other, dtype) for way, other in ways.items()})
            known.clear()
    for (name, dtype), those in scores.items():
        tests = [choose_anchor(pair) for pair in combinations(those, 2)]
        say(adapter=name, lora=dtype, pairs=len(tests), told_apart=sum(choice.anchor is not None for choice in tests))


def say(**line: object) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201


def factorised(adapter: Adapter, rng: np.random.Generator) -> Adapter:
    """Return the same function with other factors: turned, rescaled rank by rank by 10^-0.5 to 10^0.5, and turned again."""

    def rescaled(pair: LoraPair) -> LoraPair:
        by = torch.from_numpy(10 ** rng.uniform(-0.5, 0.5, pair.rank)).float()
        return LoraPair(
            down=pair.down * by.view(-1, *[1] * (pair.down.ndim - 1)), up=pair.up / by.view(1, -1, *[1] * (pair.up.ndim - 2))
        )

    return replace(adapter, pairs={site: rescaled(pair.rotated(rng)).rotated(rng) for site, pair in adapter.pairs.items()})


if __name__ == "__main__":
    main()
