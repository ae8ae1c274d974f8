"""Recipe: a YAML file -> whether it is right, with the files that it names; the schema for editors."""

import argparse
from typing import Any

from quadbench.cli.console import print_json, print_text
from quadbench.cli.options import add_action, add_group, add_recipe
from quadbench.quad.named import check_named
from quadbench.recipe import load_recipe, recipe_digest, recipe_schema


def add(commands: Any) -> None:
    """Add `quadbench recipe` and its actions to the commands."""
    actions = add_group(commands, "recipe")
    add_recipe(add_action(actions, "check", run_check, "say whether a recipe is right; every problem with its line"))
    add_action(actions, "schema", run_schema, "print the JSON Schema of recipes, for editors")


def run_check(options: argparse.Namespace) -> int:
    recipe = load_recipe(options.recipe)
    check_named(recipe)
    digest = recipe_digest(recipe)
    if options.json:
        print_json({"name": recipe.name, "digest": digest, "tasks": [task.name for task in recipe.tasks]})
    else:
        print_text(f"{recipe.name}: right; {len(recipe.adapters)} adapters, {len(recipe.tasks)} tasks, digest {digest[:12]}")
    return 0


def run_schema(_options: argparse.Namespace) -> int:
    print_json(recipe_schema())
    return 0
