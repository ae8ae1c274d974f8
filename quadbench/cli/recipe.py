"""The command `recipe`: check a recipe and its files, write a new one, list those that come along, or print the JSON Schema."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from quadbench.cli.console import print_answer, print_json
from quadbench.cli.options import Options, Subparsers, add_action, add_group, add_recipe, counted, next_command
from quadbench.errors import StorageError, UnknownNameError, UserError, requires_extra
from quadbench.quad.model_files import AdapterSource
from quadbench.quad.new_recipe import recipe_text
from quadbench.recipe import Recipe, recipe_digest
from quadbench.recipe.recipe import built_in_recipes, recipe_schema
from quadbench.spec import NAME_EXPECTED, is_name

if TYPE_CHECKING:  # it imports numpy
    from quadbench.quad.model_family import ModelConfigs


def add(commands: Subparsers) -> None:
    actions = add_group(commands, "recipe")
    add_recipe(add_action(actions, "check", run_check, "check a recipe, and list every problem with its line"))
    new = add_action(actions, "new", run_new, "write a recipe to edit: a copy of one that comes along, or one for your own model")
    new.add_argument("recipe", nargs="?", help="the recipe to copy; `quadbench recipe list` prints their names")
    new.add_argument("--foundation", metavar="DIR", help="a diffusers folder, a .safetensors file, or emoji-ldm")
    new.add_argument("--adapter", nargs="+", type=Path, metavar="FILE", help="PEFT folders or .safetensors files")
    new.add_argument("--unet-only", action="store_true", help="ignore tensors for the text encoder")
    new.add_argument("--output", type=Path, default=Path("mine.yaml"), metavar="FILE", help="the new file (default: %(default)s)")
    add_action(actions, "list", run_list, "list the recipes that come with quadbench")
    add_action(actions, "schema", run_schema, "print the JSON Schema of recipes, for editors")


def run_check(options: Options) -> int:
    recipe, model = _read_checked(options.recipe)
    digest = recipe_digest(recipe)
    scheduler = {key: getattr(model.scheduler, key) for key in ("prediction", "spacing", "zero_terminal_snr")}
    answer: dict[str, object] = {"name": recipe.name, "digest": digest, "tasks": [task.name for task in recipe.tasks]}
    answer["model"] = {"family": model.family.name, **scheduler}
    counts = f"{counted(len(recipe.adapters), 'adapter')}, {counted(len(recipe.tasks), 'task')}"
    valid = f"{recipe.name}: valid; {counts}, digest {digest[:12]}\nmodel: {model.family.name}, {model.scheduler.words()}"
    print_answer(options, answer, f"{valid}\nnext: {next_command(options, 'run', options.recipe)}")
    return 0


def run_new(options: Options) -> int:
    path: Path = options.output
    if path.suffix not in (".yaml", ".yml") or not is_name(path.stem):
        raise UserError(f"--output '{path}' is not a recipe file; expected NAME.yaml, with a NAME of {NAME_EXPECTED}")
    if bool(options.recipe) == bool(options.foundation and options.adapter):
        hint = "quadbench recipe new quickstart, or quadbench recipe new --foundation DIR --adapter FILE"
        raise UserError("expected a recipe to copy, or --foundation and --adapter", hint=hint)
    text = _copied(options.recipe, path) if options.recipe else _for_model(path, options)
    try:
        with path.open("x", encoding="utf-8") as written:
            written.write(text)
    except FileExistsError as error:
        raise UserError(f"'{path}' exists already and is not overwritten", hint="give another name with --output") from error
    except OSError as error:
        raise StorageError(f"'{path}' cannot be written: {error.strerror}") from error
    try:
        _read_checked(path)
    except BaseException:  # do not leave an invalid recipe behind
        path.unlink()
        raise
    check = next_command(options, "recipe", "check", str(path))
    print_answer(options, {"recipe": str(path)}, f"written: {path}\nnext: edit it, then {check}")
    return 0


def run_list(options: Options) -> int:
    purposes = {name: _purpose(file.read_text(encoding="utf-8")) for name, file in built_in_recipes().items()}
    width = max(map(len, purposes))
    print_answer(options, purposes, "\n".join(f"{name.ljust(width)}  {purpose}" for name, purpose in purposes.items()))
    return 0


def run_schema(_options: Options) -> int:
    print_json(recipe_schema())
    return 0


def _read_checked(source: str | Path) -> tuple[Recipe, "ModelConfigs"]:
    """Return a recipe and its model's configurations. Raise an error if a file of the recipe is missing or unusable."""
    from quadbench.quad.inputs import check_references, read_recipe

    recipe = read_recipe(source)
    return recipe, check_references(recipe)


def _copied(name: str, path: Path) -> str:
    """Return the text of a recipe that comes along, for the file `path`. Its relative paths are made absolute."""
    recipes = built_in_recipes()
    if name not in recipes:
        raise UnknownNameError("recipe", name, recipes)
    source = recipes[name]
    text = source.read_text(encoding="utf-8").replace(f"recipes/{name}.yaml", str(path))
    text = text.replace(f"\nname: {name}\n", f"\nname: {path.stem}\n")

    def absolute(path: re.Match[str]) -> str:
        place = source.parent / path[0]
        return json.dumps(str(place)) if place.exists() else path[0]

    return re.sub(r"(?<=path: )[\w./-]+", absolute, text)


def _purpose(text: str) -> str:
    """Return the first sentence of a recipe's opening comment, which follows its command lines."""
    comment = re.search(r"^#\n((?:# .*\n)+)", text, re.MULTILINE)
    return " ".join(comment[1].replace("# ", "").split()).partition(". ")[0].rstrip(".") if comment else ""


def _for_model(path: Path, options: Options) -> str:
    """Return the text of a short recipe with comments for the model and adapters that the options name."""
    with requires_extra("quad"):
        from quadbench.quad.adapters.loading import read_adapter
    adapters = []
    for file in options.adapter:
        content = read_adapter(file.name, file, unet_only=options.unet_only)
        leaves_out = options.unet_only and content.left_out is not None
        adapters.append(AdapterSource(format=content.format, path=content.path, unet_only=leaves_out))
    return recipe_text(path, path.stem, options.foundation, adapters)
