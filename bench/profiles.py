"""Shared profiles against each other: adapters that fit and adapters that do not, before and after distillation, as two tables.

    python bench/profiles.py run --out FILE.jsonl [--lora int8] [--steps 75] [--seeds 3]     --steps 0: before training alone
    python bench/profiles.py show FILE.jsonl...

All adapters are the built-in `restyle`, once as it is and three times made unlike it: `skewed` (down/8, up*8: the same function),
`tenfold` (one rank index of down ten times as large, of up a tenth: the same function, a tenfold range) and `doubled` (down*2 and
up*2: another function, whose products do not fit the anchor's ranges). With `remove-object` they share a graph. `run` appends one
line for each profile, adapter and seed, and skips those that FILE holds already.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch

from quadbench.artifacts import Component
from quadbench.quad.adapters import Adapter, LoraPair
from quadbench.quad.adapters.lora_profile import LoraProfile, clip_rate, lora_profile, site_fits
from quadbench.quad.distill import VALIDATION_EXAMPLES, Student, distill
from quadbench.quad.divergence import spread
from quadbench.quad.feeds import calibrated
from quadbench.quad.prepare import Prepared, prepare
from quadbench.quad.quantize.fake_quant import FakeQuantGraph
from quadbench.quad.quantize.quantizer import quantized
from quadbench.quad.samplers.table import run_table
from quadbench.quad.steps import Steps
from quadbench.quad.tasks.examples import Example, divided, examples
from quadbench.quad.tasks.runner import Denoiser, Feed, GraphSession
from quadbench.quad.training import Settings, sqnr_db
from quadbench.recipe import load_recipe

ANCHOR, JUDGED = "restyle", ("restyle", "skewed", "tenfold", "doubled")
RECIPE = "quickstart"
PROFILES = {"anchor": (ANCHOR, False), "anchor, gauge": (ANCHOR, True), "unified": (None, False), "unified, gauge": (None, True)}
IMAGES = 4
COSTLY_DB = 6.0  # below the best profile's: there every seed is trained, elsewhere one


@dataclass(frozen=True, kw_only=True)
class Line:
    """One training of one adapter under one profile. SQNR of eps in dB; PSNR of each image against the float U-Net's, in dB."""

    lora: str
    profile: str
    adapter: str
    seed: int
    clip_rate: float
    before_db: float
    after_db: float
    psnr_before_db: tuple[float, ...]
    psnr_after_db: tuple[float, ...]
    steps: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    run = actions.add_parser("run")
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--lora", choices=("int16", "int8"), default="int8")
    run.add_argument("--steps", type=int, default=75)
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--profile", choices=PROFILES, help="only this one (default: all)")
    run.add_argument("--adapter", choices=JUDGED, help="only this one (default: all)")
    run.add_argument("--threads", type=int, default=2)
    show = actions.add_parser("show")
    show.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    if options.action == "show":
        print(tables([line for file in options.files for line in read(file)]))  # noqa: T201
        return
    torch.set_num_threads(options.threads)
    done = {(line.profile, line.adapter, line.seed) for line in read(options.out)}
    with options.out.open("a") as out:
        chosen = [(p, a) for p, a in product(PROFILES, JUDGED) if options.profile in (None, p) and options.adapter in (None, a)]
        for line in study(options.lora, options.steps, options.seeds, chosen, done):
            out.write(json.dumps(asdict(line)) + "\n")
            out.flush()


def study(lora: str, steps: int, seeds: int, chosen: list[tuple[str, str]], done: set[tuple[str, str, int]]) -> Iterator[Line]:
    """Train the chosen adapters under the chosen profiles, with more than one seed only where the profile costs much."""
    settings = Settings(steps=steps, batch=8, learning_rate=2e-3, diffusion_weight=0.0, patience=2, seed=0)
    with torch.no_grad():
        prepared = prepare(load_recipe(RECIPE), Steps(), Path(tempfile.gettempdir()))
        adapters = {**unlike(prepared.adapters[ANCHOR]), "remove-object": prepared.adapters["remove-object"]}
        training, validation = {}, {}
        for name in JUDGED:
            training[name], validation[name] = _examples(prepared, adapters[name])
        graphs = {name: _graph(prepared, adapters, lora, *choice) for name, choice in PROFILES.items()}
    starts = {}
    for (profile, (shared, student)), name in product(graphs.items(), JUDGED):
        starts[profile, name] = sqnr_db(student, _inputs(prepared, shared.adapters[name]), validation[name])
    for profile, name in chosen:
        shared, student = graphs[profile]
        costs = max(starts[other, name] for other in PROFILES) - starts[profile, name]
        for seed in range(seeds if costs > COSTLY_DB else 1):
            if (profile, name, seed) in done:
                continue
            distilled = distill(
                shared.adapters[name],
                Student(graph=student, shapes=prepared.shapes, encodings=shared.encodings),
                training=training[name],
                validation=validation[name],
                settings=replace(settings, seed=seed),
            )
            exact = replace(adapters[name], name=ANCHOR)
            yield Line(
                lora=lora,
                profile=profile,
                adapter=name,
                seed=seed,
                clip_rate=clip_rate(site_fits(shared.adapters[name], shared.encodings)),
                before_db=distilled.before_db,
                after_db=distilled.after_db,
                psnr_before_db=_psnr_db(prepared, exact, student, shared.adapters[name]),
                psnr_after_db=_psnr_db(prepared, exact, student, distilled.adapter),
                steps=distilled.steps,
            )


def _examples(prepared: Prepared, adapter: Adapter) -> tuple[list[Example], list[Example]]:
    """Return the examples that train an adapter and those that judge it, all of the anchor's task."""
    exact = replace(adapter, name=ANCHOR)
    items = divided(prepared, exact)
    judging = examples(prepared, exact, items.validation, seeds=(5,), noised=False)
    training = examples(prepared, exact, items.training, seeds=(1, 2), noised=False)
    return training, [judging[i] for i in spread(len(judging), VALIDATION_EXAMPLES)]


def unlike(adapter: Adapter) -> dict[str, Adapter]:
    """Return the adapter and three that are unlike it, by name."""

    def changed(name: str, down: float, up: float, *, only_first: bool = False) -> Adapter:
        pairs = {}
        for site, pair in adapter.pairs.items():
            d, u = torch.ones(pair.rank), torch.ones(pair.rank)
            chosen = slice(0, 1) if only_first else slice(None)
            d[chosen], u[chosen] = down, up
            pairs[site] = LoraPair(
                down=pair.down * d.view(-1, *(1,) * (pair.down.ndim - 1)),
                up=pair.up * u.view(1, -1, *(1,) * (pair.up.ndim - 2)),
            )
        return Adapter(name=name, pairs=pairs)

    return {
        ANCHOR: adapter,
        "skewed": changed("skewed", 1 / 8, 8.0),
        "tenfold": changed("tenfold", 10.0, 0.1, only_first=True),
        "doubled": changed("doubled", 2.0, 2.0),
    }


def _graph(
    prepared: Prepared, adapters: dict[str, Adapter], lora: str, anchor: str | None, gauge: bool
) -> tuple[LoraProfile, FakeQuantGraph]:
    """Return the LoRA profile and the graph, calibrated jointly: every adapter on its task's inputs, and no adapter.

    Ranges are the recipe's.
    """
    shared = lora_profile(list(adapters.values()), anchor=anchor, gauge=gauge, headroom=1.0, dtype=lora)
    feeds = []
    for name, adapter in [*shared.adapters.items(), (None, None)]:
        task = "remove-object" if name == "remove-object" else "restyle"
        feeds += [feed | prepared.feed(adapter) for feed in prepared.visits[task].feeds[::2]]
    graph = quantized(calibrated(load_recipe(RECIPE), prepared.models[Component.UNET], feeds), lora=shared.encodings)
    return shared, FakeQuantGraph(graph.model)


def _inputs(prepared: Prepared, adapter: Adapter) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in prepared.feed(adapter).items()}


def _psnr_db(prepared: Prepared, exact: Adapter, student: FakeQuantGraph, adapter: Adapter) -> tuple[float, ...]:
    """Compare the student's images of the anchor's task with those of the float U-Net; text encoder and VAE are float in both."""
    task = next(task for task in prepared.tasks if ANCHOR in task.task.adapter)
    decoder = GraphSession(prepared.models[Component.VAE_DECODER])
    weights = _inputs(prepared, adapter)

    def quantized_unet(feed: Feed) -> torch.Tensor:
        with torch.no_grad():
            return student({n: torch.from_numpy(v) for n, v in feed.items() if not n.startswith("lora.")} | weights)

    psnrs = []
    for item in task.items.evaluation[:IMAGES]:
        images = []
        for unet, lora in ((prepared.unet, prepared.feed(exact)), (quantized_unet, {})):
            condition = prepared.encoders.condition(item, task.features, lora, task.task.guidance)
            latent = run_table(
                task.table,
                Denoiser(unet=unet, condition=condition),
                latent=prepared.encoders.latent(item),
                noise=item.noise(prepared.foundation, len(task.table.steps)),
            )
            images.append((decoder({"latent": latent.numpy()}).clamp(-1, 1) + 1) / 2)
        psnrs.append(-10 * math.log10(max(float((images[0] - images[1]).square().mean()), 1e-10)))
    return tuple(psnrs)


def read(path: Path) -> list[Line]:
    """Return the lines of a file; none where it does not exist."""
    return [Line(**json.loads(text)) for text in path.read_text().splitlines()] if path.exists() else []


def tables(lines: list[Line]) -> str:
    """Return Markdown: SQNR of eps and PSNR of images, before -> after; ± is the deviation over seeds, or over images."""
    parts = []
    for title, cell in (("SQNR of eps, dB", _sqnr_cell), ("PSNR of images, dB", _psnr_cell)):
        parts.append(f"{title}\n\n| LoRA | adapter | " + " | ".join(PROFILES) + " |\n|---|---|" + "---|" * len(PROFILES))
        for lora, name in product(("int16", "int8"), JUDGED):
            cells = [
                cell([line for line in lines if (line.lora, line.adapter, line.profile) == (lora, name, p)]) for p in PROFILES
            ]
            parts.append(f"| {lora} | `{name}` | " + " | ".join(cells) + " |")
        parts.append("")
    return "\n".join(parts)


def _sqnr_cell(lines: list[Line]) -> str:
    if not lines:
        return ""
    after = [line.after_db for line in lines]
    deviation = f" ± {np.std(after, ddof=1):.1f}" if len(after) > 1 else ""
    return f"{lines[0].before_db:.1f} → {np.mean(after):.1f}{deviation}"


def _psnr_cell(lines: list[Line]) -> str:
    if not lines:
        return ""
    before, after = lines[0].psnr_before_db, [value for line in lines for value in line.psnr_after_db]
    return f"{np.mean(before):.1f} ± {np.std(before, ddof=1):.1f} → {np.mean(after):.1f} ± {np.std(after, ddof=1):.1f}"


if __name__ == "__main__":
    main()
