"""Bundles with per-graph baselines -> what one base with LoRAs and one graph for each use case take on a device, as Markdown.

    quadbench run RECIPE       of a recipe with `baselines: [per-graph]`
    quadbench compile results/bundles/DIGEST --target TARGET
    python bench/scale.py results/bundles/DIGEST [results/compiled/DIGEST]

Bytes of files that were built, as a device would store them; of a compiled bundle those of its graphs, with the adapters of the
bundle that it was compiled from, which has to be given too. For more use cases than were built, LoRAs and per-graph U-Nets count
as large as the mean of those that were; such rows say `extrapolated`.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from quadbench.artifacts import Bundle, CompiledBundle, Component, Graph, Variant
from quadbench.compile import graphs_digest
from quadbench.results.manifest import MANIFEST, read_manifest

USE_CASES = (2, 10)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The sizes of a model in bytes. `parts` are text encoder and VAE, which no adapter touches."""

    parts: int
    unet: int
    adapters: tuple[int, ...]
    merged: tuple[int, ...]  # the U-Nets of the per-graph baselines

    def shared(self, count: int) -> float:
        return self.parts + self.unet + count * mean(self.adapters)

    def per_graph(self, count: int) -> float:
        """Return the bytes of one U-Net for each use case; text encoder and VAE count once."""
        return self.parts + count * mean(self.merged)

    def whole(self, count: int) -> float:
        """Return what the paper counts: every use case has a whole model and its LoRA's bytes."""
        return count * (self.parts + self.unet + mean(self.adapters))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER", help="of a bundle, or of one compiled from it")
    print("\n".join(table(models([_artifact(folder) for folder in parser.parse_args().folders]))))  # noqa: T201


def models(artifacts: list[Bundle | CompiledBundle]) -> dict[str, Sizes]:
    """Return the sizes of each artifact by its name, in the order given.

    Raises:
        KeyError: a compiled bundle comes without the one that it was compiled from.
    """
    bundles = {graphs_digest(artifact): artifact for artifact in artifacts if isinstance(artifact, Bundle)}
    sizes = {}
    for artifact in artifacts:
        if isinstance(artifact, Bundle):
            sizes[artifact.recipe_name] = sizes_of(artifact.graphs, artifact)
        else:
            bundle = bundles[artifact.parent_digest]
            sizes[f"{bundle.recipe_name} for {artifact.target}"] = sizes_of(artifact.graphs, bundle)
    return sizes


def table(models: dict[str, Sizes]) -> list[str]:
    """Return the lines of a Markdown table, in megabytes (10^6)."""
    lines = [
        "| model | use cases | base | LoRA | shared, in all | per graph, in all | ratio | whole models, in all | ratio |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, sizes in models.items():
        for count in USE_CASES:
            how = "" if count <= len(sizes.merged) else ", extrapolated"
            shared, per_graph, whole = sizes.shared(count), sizes.per_graph(count), sizes.whole(count)
            cells = (_mb(sizes.parts + sizes.unet), _mb(mean(sizes.adapters)), _mb(shared), _mb(per_graph))
            ratios = (f"{per_graph / shared:.1f}x", _mb(whole), f"{whole / shared:.1f}x")
            lines.append(f"| {' | '.join((name, f'{count}{how}', *cells, *ratios))} |")
    return lines


def sizes_of(graphs: tuple[Graph, ...], bundle: Bundle) -> Sizes:
    """Return the sizes of a bundle's own graphs, or of what they were compiled to.

    Raises:
        ValueError: no per-graph U-Net or no adapter was built.
    """
    shared = {g.component: g.file.size_bytes for g in graphs if g.variant is Variant.SHARED}
    unet = shared.pop(Component.UNET)
    merged = tuple(g.file.size_bytes for g in graphs if g.variant is Variant.PER_GRAPH)
    adapters = tuple(a.file.size_bytes for a in bundle.adapters if a.variant is Variant.SHARED)
    if not merged or not adapters:
        raise ValueError(f"bundle of '{bundle.recipe_name}' has {len(merged)} per-graph U-Nets and {len(adapters)} adapters")
    return Sizes(parts=sum(shared.values()), unet=unet, adapters=adapters, merged=merged)


def _artifact(folder: Path) -> Bundle | CompiledBundle:
    is_compiled = "target" in json.loads((folder / MANIFEST).read_text())
    return (read_manifest(folder, CompiledBundle) if is_compiled else read_manifest(folder, Bundle)).artifact


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f}"


if __name__ == "__main__":
    main()
