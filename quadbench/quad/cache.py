"""Cache: a recipe -> the digests of all that its bundle follows from, and the bundle that the same inputs made before.

This module does without torch, so that a run that builds nothing starts at once.
"""

from dataclasses import dataclass

from quadbench.artifacts import Bundle, Stored, Variant
from quadbench.errors import UserError
from quadbench.quad import model_files
from quadbench.quad.inputs import check_named, read_inputs
from quadbench.recipe import CheckpointFoundation, Recipe, Task
from quadbench.results.digests import code_digests, digest_of, file_digests, folder_digests, sha256_of
from quadbench.results.layout import Layout
from quadbench.results.manifest import read_manifest


@dataclass(frozen=True, kw_only=True)
class RecipeDigests:
    """Digests of a recipe with all that it names, by how much of the recipe counts.

    `bundle` is that of the bundle. `floats` is the same for recipes that differ only in how their models are quantized, `ranges`
    for those that differ only in their bits, `models` for those that differ in both of the former and in samplers.
    """

    bundle: str
    floats: str
    ranges: str
    models: str


def cached(recipe: Recipe, layout: Layout) -> Stored[Bundle] | None:
    """Return the recipe's bundle, or None where it has to be built.

    Raises:
        ArtifactError: the bundle is damaged.
    """
    folder = layout.bundle(digests_of(recipe).bundle)
    return read_manifest(folder, Bundle) if folder.is_dir() else None


def digests_of(recipe: Recipe) -> RecipeDigests:
    """Return the digests of a recipe with its weights, adapters, inputs, packages and the code that builds.

    How a recipe is measured and shown does not count.

    Raises:
        UserError: what the recipe names is not there, cannot be what it is named as, or cannot be read.
    """
    check_named(recipe)
    try:
        adapters = {name: model_files.adapter_source(spec) for name, spec in recipe.adapters.items()}
        spec = recipe.foundation
        if folder := model_files.foundation_folder(spec):
            foundation = file_digests(model_files.foundation_files(folder))
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
        raise UserError(f"'{error.filename}', which recipe '{recipe.name}' names, cannot be read: {error.strerror}") from error
    built = recipe.model_dump(mode="json", exclude={"measure", "runtime", "published", "devices"})
    built["baselines"] = sorted(name for name in recipe.baselines if Variant(name).graphs == name)  # others run graphs of these
    ranges = built | {"precision": None, "baselines": None}
    floats = ranges | {"quad": recipe.quad.calibration.samples}
    models = floats | {"tasks": [task | {"sampler": None} for task in built["tasks"]]}
    return RecipeDigests(
        bundle=digest_of({"recipe": built, **named}),
        floats=digest_of({"recipe": floats, **named}),
        ranges=digest_of({"recipe": ranges, **named}),
        models=digest_of({"recipe": models, **named}),
    )


def _input_digests(task: Task) -> list[list[str | None]]:
    """Return each input's texts, and the digests of its image, mask and truth, each at its place."""
    return [
        [e.name, e.prompt, e.negative_prompt, *(sha256_of(path) if path else None for path in (e.image, e.mask, e.truth))]
        for e in read_inputs(task)
    ]
