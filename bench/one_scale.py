"""One scale for A, B and W of a site, as the paper writes it, against scales of their own: an ablation, which no build offers.

    nice python bench/one_scale.py [--recipe use-cases]

All adapters of the recipe share a graph whose weights and LoRA inputs have 8 bits; the zero point is 0 throughout, and ranges are
pooled over adapters. The ways to share a scale, from the finest to the coarsest:

- `own`: one for each output channel of W, and one each for A and for B of a site, as builds have it;
- `one for W`: one for W as a whole, and one each for A and B;
- `one a site`: one for A, B and W of a site together;
- `one for all`: one for all A, B and W of all sites.

Weights at no site keep a scale for each channel. With the gauge, A and B of a site are balanced against each other first, which
changes no product. Judged as in profiles.py, by SQNR of eps: the mean over inputs ± half of its 95 % interval (Student's t).
"""

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from fairness import sqnr_db
from profiles import Study, interval, with_adapters

from quadbench.quad.adapters.lora_profile import LoraProfile, Ranges, align_gauge, lora_encodings, lora_ranges
from quadbench.quad.held_out_inputs import integers_as_run
from quadbench.quad.model.lora import input_names
from quadbench.quad.prepare import BuildSteps, prepare
from quadbench.quad.quantize import encodings
from quadbench.quad.quantize.encodings import limits
from quadbench.quad.quantize.quantizer import write_qdq
from quadbench.quad.runner import GraphSession
from quadbench.recipe.recipe import load_recipe

WAYS = ("own", "one for W", "one a site", "one for all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="use-cases")
    recipe = with_adapters(load_recipe(parser.parse_args().recipe))
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
        study = Study(recipe, prepare(recipe, BuildSteps(), Path(scratch)), copies=False)
        print("| activations | gauge | scales | " + " | ".join(f"`{name}`" for name in study.subjects) + " |")  # noqa: T201
        print("|---|---|---|" + "---|" * len(study.subjects))  # noqa: T201
        for gauge, int8_percent, way in product((False, True), (0, 100), WAYS):
            cells = " | ".join(figures(study, way, gauge=gauge, int8_percent=int8_percent))
            bits, balanced = "INT8" if int8_percent else "INT16", "on" if gauge else "off"
            print(f"| {bits} | {balanced} | {way} | {cells} |", flush=True)  # noqa: T201


def figures(study: Study, way: str, *, gauge: bool, int8_percent: int) -> Iterator[str]:
    """Yield the SQNR of each adapter, as a cell of the table."""
    lora, weight_ranges = shared(study, way, gauge=gauge)
    with rounded_under(study, weight_ranges):
        written = write_qdq(study.calibration(lora, str(gauge)), int8_percent=int8_percent, lora=lora.encodings)
    graph = GraphSession(written.model)
    for name, subject in study.subjects.items():
        integers = integers_as_run(lora, {name: 1.0}, study.prepared.shapes)
        yield interval([sqnr_db(one.eps, graph, integers) for one in subject.judged])


def shared(study: Study, way: str, *, gauge: bool) -> tuple[LoraProfile, dict[str, float]]:
    """Return the adapters with their encodings, and the range of W at each site; none where each channel has its own."""
    adapters = [subject.adapter for subject in study.subjects.values()]
    ranges = lora_ranges(adapters)
    if gauge:
        adapters = [align_gauge(adapter, dict.fromkeys(ranges, 1.0)) for adapter in adapters]
        ranges = lora_ranges(adapters)
    weights = study.prepared.foundation.unet.state_dict()
    sites = sorted({site for adapter in adapters for site in adapter.pairs})
    of_w = {site: float(weights[f"{site}.weight"].abs().max()) for site in sites}
    if way in ("one a site", "one for all"):
        of_w = {site: max(of_w[site], *(ranges[name] for name in input_names(site))) for site in sites}
        if way == "one for all":
            of_w = dict.fromkeys(sites, max(of_w.values()))
        ranges = Ranges({name: of_w[site] for site in sites for name in input_names(site)})
    profile = LoraProfile(
        adapters={adapter.name: adapter for adapter in adapters},
        anchor=None,
        encodings=lora_encodings(ranges, headroom=1.0, dtype="int8"),
    )
    return profile, {} if way == "own" else of_w


@contextmanager
def rounded_under(study: Study, ranges: Mapping[str, float]) -> Iterator[None]:
    """Have the weights at sites written with one scale for the whole of each, which holds its range.

    Raises:
        ValueError: the graph has a site's weights in another form than the U-Net, so that they were not found.
    """
    weights = study.prepared.foundation.unet.state_dict()
    wanted = {}
    for site, magnitude in ranges.items():
        weight = weights[f"{site}.weight"].numpy()
        forms = (weight, weight.T) if weight.ndim == 2 else (weight,)  # a product has it transposed
        wanted |= {np.ascontiguousarray(form).tobytes(): (site, magnitude) for form in forms}
    own, found = encodings.quantize_channels, set()

    def as_a_whole(values: np.ndarray, axis: int, *, least_scales: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        site, magnitude = wanted.get(np.ascontiguousarray(values).tobytes(), (None, 0.0))
        if site is not None:
            found.add(site)
            least_scales = np.full(values.shape[axis], magnitude / limits("int8")[1], np.float32)
        return own(values, axis, least_scales=least_scales)

    with mock.patch.object(encodings, "quantize_channels", as_a_whole):
        yield
    if lost := set(ranges) - found:
        raise ValueError(f"weights of {len(lost)} of {len(ranges)} sites were not found in the graph, as of '{min(lost)}'")


if __name__ == "__main__":
    main()
