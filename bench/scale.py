"""Bundles with per-graph baselines -> what one base with LoRAs and one graph for each use case take on a device, as Markdown.

    quadbench run RECIPE       of a recipe with `baselines: [per-graph]`
    python bench/scale.py results/bundles/DIGEST

Bytes of files that were built, as a device would store them. For more use cases than were built, LoRAs and per-graph U-Nets count
as large as the mean of those that were; such rows say `extrapolated`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from quadbench.artifacts import Bundle, Component, Variant
from quadbench.manifest import read_manifest

USE_CASES = (2, 10)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """In bytes. `parts` are text encoder and VAE, which no adapter touches."""

    parts: int
    unet: int
    adapters: tuple[int, ...]
    merged: tuple[int, ...]  # the U-Nets of the per-graph baselines

    def shared(self, count: int) -> float:
        return self.parts + self.unet + count * mean(self.adapters)

    def per_graph(self, count: int) -> float:
        """Text encoder and VAE once."""
        return self.parts + count * mean(self.merged)

    def whole(self, count: int) -> float:
        """As the paper counts: every use case has a whole model and its LoRA's bytes."""
        return count * (self.parts + self.unet + mean(self.adapters))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path, nargs="+", help="folders of bundles")
    print("\n".join(table([read_manifest(folder, Bundle) for folder in parser.parse_args().bundles])))  # noqa: T201


def table(bundles: list[Bundle]) -> list[str]:
    """Megabytes (10^6)."""
    lines = [
        "| model | use cases | base | LoRA | shared, in all | per graph, in all | ratio | whole models, in all | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for bundle in bundles:
        sizes = sizes_of(bundle)
        for count in USE_CASES:
            how = "" if count <= len(sizes.merged) else ", extrapolated"
            shared, per_graph, whole = sizes.shared(count), sizes.per_graph(count), sizes.whole(count)
            cells = (_mb(sizes.parts + sizes.unet), _mb(mean(sizes.adapters)), _mb(shared), _mb(per_graph))
            ratios = (f"{per_graph / shared:.1f}x", _mb(whole), f"{whole / shared:.1f}x")
            lines.append(f"| {' | '.join((bundle.recipe_name, f'{count}{how}', *cells, *ratios))} |")
    return lines


def sizes_of(bundle: Bundle) -> Sizes:
    """Raises: ValueError where nothing of one kind was built."""
    shared = {g.component: g.file.size_bytes for g in bundle.graphs if g.variant is Variant.SHARED}
    unet = shared.pop(Component.UNET)
    merged = tuple(g.file.size_bytes for g in bundle.graphs if g.variant is Variant.PER_GRAPH)
    adapters = tuple(a.file.size_bytes for a in bundle.adapters if a.variant is Variant.SHARED)
    if not merged or not adapters:
        raise ValueError(f"bundle of '{bundle.recipe_name}' has {len(merged)} per-graph U-Nets and {len(adapters)} adapters")
    return Sizes(parts=sum(shared.values()), unet=unet, adapters=adapters, merged=merged)


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f}"


if __name__ == "__main__":
    main()
