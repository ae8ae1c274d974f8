"""Cache: digests of a recipe's build inputs, for finding a built bundle by digest. This module does not import torch."""

from dataclasses import dataclass

from quadbench.artifacts import Bundle, StoredBundle, Variant
from quadbench.errors import UserError
from quadbench.quad import model_files
from quadbench.quad.inputs import check_references, read_inputs
from quadbench.recipe import CheckpointFoundation, Recipe, Task
from quadbench.results.digests import code_digests, digest_of, file_digests, folder_digests, sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class RecipeDigests:
    """Digests of different parts of a recipe and its files, so that builds can reuse earlier results for unchanged parts.

    `bundle` covers everything. `floats` ignores how models are quantized, `ranges` ignores the bits, and `models` ignores both
    and the samplers. `foundation` covers the foundation model and the packages alone.
    """

    bundle: str
    floats: str
    ranges: str
    models: str
    foundation: str


def find_bundle(recipe: Recipe, layout: Layout) -> StoredBundle | None:
    """Return the recipe's bundle if it was already built, else None. Raise ArtifactError if the bundle is damaged."""
    folder = layout.bundle(digests_of(recipe).bundle)
    return read_manifest(folder, Bundle) if folder.is_dir() else None


def digests_of(recipe: Recipe) -> RecipeDigests:
    """Return RecipeDigests of all that determines a recipe's bundle: settings, weights, adapters, inputs, packages and build
    code. Settings that only affect measuring or display are left out. Raise UserError if a file is missing or unsuitable.
    """
    family = check_references(recipe).family
    try:
        adapters = {name: model_files.adapter_source(spec) for name, spec in recipe.adapters.items()}
        spec = recipe.foundation
        if folder := model_files.foundation_folder(spec):
            foundation = file_digests(model_files.foundation_files(folder, family.folders))
        else:
            own = file_digests({spec.path.name: spec.path}) if isinstance(spec, CheckpointFoundation) else {}
            foundation = own | folder_digests(model_files.GEOMETRIES)
        named = {
            "foundation": foundation,
            "adapters": {name: model_files.adapter_digests(source.path) if source else {} for name, source in adapters.items()},
            "inputs": {task.name: _input_digests(task) for task in recipe.tasks},
            "packages": model_files.tool_versions(),
            "code": code_digests("quadbench.quad.build"),
        }
    except OSError as error:
        raise UserError(f"'{error.filename}' of recipe '{recipe.name}' cannot be read: {error.strerror}") from error
    built = recipe.model_dump(mode="json", exclude={"measure", "runtime", "published", "devices"})
    built["baselines"] = sorted(
        name for name in recipe.baselines if Variant(name).graph_variant == name
    )  # baselines of other variants reuse existing graphs
    ranges = built | {"precision": None, "baselines": None}
    floats = ranges | {"quad": recipe.quad.calibration.samples}
    models = floats | {"tasks": [task | {"sampler": None} for task in built["tasks"]]}
    return RecipeDigests(
        bundle=digest_of({"recipe": built, **named}),
        floats=digest_of({"recipe": floats, **named}),
        ranges=digest_of({"recipe": ranges, **named}),
        models=digest_of({"recipe": models, **named}),
        foundation=digest_of({"recipe": built["foundation"], "files": foundation, "packages": named["packages"]}),
    )


def _input_digests(task: Task) -> list[list[str | None]]:
    """Return a list with [name, prompt, negative prompt, image, mask, truth] per input. Images are SHA-256 digests or None."""
    return [
        [e.name, e.prompt, e.negative_prompt, *(sha256_of(path) if path else None for path in (e.image, e.mask, e.truth))]
        for e in read_inputs(task)
    ]
