"""Recipe: a file with mistakes is refused with the reason, one without becomes the model, its digest and its schema."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.schemas import poorly_described
from support.sentences import raising, reads, says

from quadbench.errors import SpecError, UnknownNameError
from quadbench.recipe import mix_name, recipe_digest
from quadbench.recipe.recipe import load_recipe, recipe_schema
from quadbench.recipe.settings import AnchorProfile
from quadbench.recipe.tasks import BuiltinInputs, InpaintTask, LcmSampler

RECIPE: dict[str, Any] = {
    "schema_version": 1,
    "name": "two-tasks",
    "foundation": {"source": "diffusers", "path": "models/sd"},
    "adapters": {"ink": {"source": "peft", "path": "ink"}, "oil": {"source": "builtin", "name": "oil"}},
    "tasks": [
        {
            "name": "draw",
            "kind": "text-to-image",
            "adapter": None,
            "sampler": {"scheme": "ed", "steps": 20},
            "prompts": ["a cat"],
        },
        {
            "name": "fill",
            "kind": "inpaint",
            "adapter": "ink",
            "sampler": {"scheme": "lcm", "steps": 4},
            "inputs": {"source": "folder", "path": "inputs"},
        },
    ],
    "precision": {"weights": "int8", "activations": {"scheme": "w8a16"}, "lora": "int16"},
    "quad": {"profile": {"scheme": "anchor", "adapter": "ink"}, "calibration": {"scheme": "joint"}},
    "baselines": ["per-graph"],
}


def write(folder: Path, **changes: Any) -> Path:
    """Write RECIPE as a file; a change is `a__1__b=value`."""
    recipe = json.loads(json.dumps(RECIPE))
    for place, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in place.split("__"))
        target = recipe
        for part in parents:
            target = target[part]
        target[last] = value
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


@pytest.fixture
def problems(tmp_path: Path):
    """Return a function: changes of RECIPE -> its problems as `key: reason`."""

    def problems_of(**changes: Any) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load_recipe(write(tmp_path, **changes))
        return [problem.split(": ", 1)[1] for problem in caught.value.problems]

    return problems_of


def test_a_recipe_is_read_from_a_file(tmp_path):
    recipe = load_recipe(write(tmp_path))
    fill = recipe.tasks[1]
    assert isinstance(fill, InpaintTask)
    assert isinstance(fill.sampler, LcmSampler)
    assert isinstance(recipe.quad.profile, AnchorProfile)
    assert (fill.strength, fill.guidance, fill.seed, fill.composite) == (1.0, 1.0, 0, True)
    assert (recipe.measure.warmup, recipe.measure.iterations, recipe.measure.launches) == (2, 12, 2)


def test_paths_are_taken_from_the_recipe_s_folder(tmp_path):
    recipe = load_recipe(write(tmp_path))
    assert recipe.foundation.path == tmp_path / "models/sd"
    assert recipe.adapters["ink"].path == tmp_path / "ink"
    assert recipe.tasks[1].inputs.path == tmp_path / "inputs"


def test_a_recipe_that_comes_along_is_found_by_name_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quickstart").name == "quickstart"


def test_an_existing_file_wins_over_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path).rename("quickstart")
    assert load_recipe("quickstart").name == "two-tasks"


def test_an_unknown_name_gets_the_nearest_proposed():
    with raising(UnknownNameError, "quickstart"):
        load_recipe("quickstrat")


@pytest.mark.parametrize("name", ["absent.yaml", "recipes/quickstart"])
def test_what_looks_like_a_path_is_never_taken_for_a_name(name):
    with raising(SpecError, "No such file"):
        load_recipe(name)


def test_an_adapter_that_no_task_uses_is_allowed(tmp_path):
    assert "oil" in load_recipe(write(tmp_path)).adapters


def test_a_task_s_adapter_must_be_declared(problems):
    reads(problems(tasks__1__adapter="inc"), "tasks[1].adapter", "inc", "ink")


@pytest.mark.parametrize(
    ("given", "weights", "name"),
    [
        (None, {}, ""),
        ("ink", {"ink": 1.0}, "ink"),
        ({"ink": 1}, {"ink": 1.0}, "ink"),
        ({"ink": 0.5}, {"ink": 0.5}, "ink:0.5"),
        ({"oil": 1.0, "ink": -2}, {"ink": -2.0, "oil": 1.0}, "ink:-2+oil"),
    ],
)
def test_a_task_takes_no_adapter_one_or_several_with_weights(tmp_path, given, weights, name):
    task = load_recipe(write(tmp_path, tasks__1__adapter=given)).tasks[1]
    assert list(task.adapter.items()) == list(weights.items())
    assert mix_name(task.adapter) == name


def test_a_name_alone_and_its_weight_of_1_are_the_same_recipe(tmp_path):
    one, other = (load_recipe(write(tmp_path, tasks__1__adapter=given)) for given in ("ink", {"ink": 1.0}))
    assert recipe_digest(one) == recipe_digest(other)


def test_a_mix_has_a_name_that_manifests_take(problems):
    names = [f"{letter * 60}" for letter in "abcd"]
    given = {"adapters": {name: {"source": "peft", "path": "ink"} for name in names} | RECIPE["adapters"]}
    reads(problems(**given, tasks__1__adapter=dict.fromkeys(names, 1.0)), "tasks[1].adapter", 200, 243)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"inc": 0.5}, ("tasks[1].adapter", "inc", "ink")),
        ({"ink": 4.5}, ("tasks[1].adapter.ink", "-4.0", "4.0")),
        ({"ink": "much"}, ("tasks[1].adapter.ink", "much")),
        (3, ("tasks[1].adapter", 3)),
        ({}, ("tasks[1].adapter",)),
    ],
)
def test_what_is_no_weight_of_an_adapter_is_refused(problems, given, expected):
    reads(problems(tasks__1__adapter=given), *expected)


def test_the_anchor_must_be_declared(problems):
    reads(problems(quad__profile__adapter="water"), "quad.profile.adapter", "water")


def test_problems_across_keys_come_together(problems):
    reads(
        problems(tasks__0__name="fill", tasks__1__adapter="inc", quad__profile__adapter="water"),
        "tasks[1].name",
        "fill",
        "tasks[1].adapter",
        "inc",
        "ink",
        "quad.profile.adapter",
        "water",
    )


def test_calibration_on_the_anchor_needs_an_anchor(problems):
    reads(
        problems(quad={"profile": {"scheme": "unified"}, "calibration": {"scheme": "anchor"}}),
        "quad.calibration.scheme",
        "anchor",
        "unified",
    )


def test_activation_ranges_have_defaults_for_either_width(tmp_path):
    ranges = load_recipe(write(tmp_path)).quad.calibration.ranges
    assert (ranges.int16.estimator, ranges.int16.headroom) == ("min-max", 2.0)
    assert (ranges.int8.estimator, ranges.int8.percent, ranges.int8.headroom) == ("percentile", 99.99, 1.1)


def test_the_ranges_of_one_width_leave_the_other_as_it_is(tmp_path):
    given = {"int16": {"estimator": "percentile", "percent": 99.9}}
    ranges = load_recipe(write(tmp_path, quad__calibration__ranges=given)).quad.calibration.ranges
    assert (ranges.int16.percent, ranges.int16.headroom, ranges.int8.estimator) == (99.9, 1.0, "percentile")


@pytest.mark.parametrize(
    "ranges",
    [
        {"estimator": "median"},
        {"estimator": "min-max", "headroom": 0.9},
        {"estimator": "min-max", "percent": 99.0},
        {"estimator": "percentile", "percent": 50.0},
    ],
)
def test_ranges_that_make_no_sense_are_refused(problems, ranges):
    (problem,) = problems(quad__calibration__ranges={"int8": ranges})
    says(problem)


@pytest.mark.parametrize("scheme", ["joint", "own-task", "anchor"])
def test_every_way_to_calibrate_can_be_named(tmp_path, scheme):
    assert load_recipe(write(tmp_path, quad__calibration={"scheme": scheme})).quad.calibration.scheme == scheme


def test_a_baseline_stands_once(problems):
    reads(problems(baselines=["per-graph", "per-graph"]), "baselines[1]", "per-graph")


@pytest.mark.parametrize("baseline", ["resident", "context-shared", "patched"])
def test_a_way_to_keep_graphs_of_tasks_needs_their_own_graphs(tmp_path, problems, baseline):
    reads(problems(baselines=[baseline]), "baselines", baseline, "per-graph")
    assert load_recipe(write(tmp_path, baselines=["per-graph", baseline])).baselines == ("per-graph", baseline)


def test_a_trace_says_the_order_in_which_tasks_are_switched(tmp_path):
    (tmp_path / "trace.txt").write_text("# a day\ndraw\n\n  fill\ndraw\n")
    assert load_recipe(write(tmp_path, measure={"sequence": "trace.txt"})).measure.sequence == ("draw", "fill", "draw")


def test_a_task_is_not_named_as_what_is_before_the_first(problems):
    reads(problems(tasks__0__name="none", measure={"sequence": ["fill"]}), "tasks[0].name", "none")


def test_a_list_says_the_order_as_well(tmp_path, problems):
    assert load_recipe(write(tmp_path, measure={"sequence": ["draw", "fill", "draw"]})).measure.sequence == (
        "draw",
        "fill",
        "draw",
    )
    reads(problems(measure={"sequence": ["nope"]}), "measure.sequence[0]", "nope")


@pytest.mark.parametrize(
    ("trace", "problem"),
    [
        (b"draw\nDraw it\n", ("measure.sequence",)),
        (b"draw\nwipe\n", ("measure.sequence[1]", "wipe")),
        (b"\xff\n", ("measure.sequence", "utf-8")),
        (b"draw\n" * 10_001, ("measure.sequence", 10000, 10001)),
        (b"draw\n" * 2**18, ("measure.sequence",)),
        (None, ("measure.sequence",)),
        (b"", ("measure.sequence",)),
        (b"# a day\n\n", ("measure.sequence",)),
    ],
)
def test_a_trace_that_names_no_tasks_is_refused(problems, tmp_path, trace, problem):
    path = tmp_path / "trace.txt"
    path.mkdir() if trace is None else path.write_bytes(trace)
    (told,) = problems(measure={"sequence": str(path)})
    says(told, *problem)


@pytest.mark.parametrize(("steps", "scheme"), [(51, "lcm"), (60, "lcm"), (101, "ed"), (101, "olss")])
def test_a_sampler_takes_no_more_steps_than_its_schedule_has(problems, steps, scheme):
    most = {"lcm": 50}.get(scheme, 100)
    reads(problems(tasks__1__sampler={"scheme": scheme, "steps": steps}), "tasks[1].sampler.steps", 1, most, steps)


@pytest.mark.parametrize(
    ("scheme", "steps", "strength", "of"),
    [
        ("ed", 4, 0.1, (4,)),
        ("lcm", 4, 0.2, (4,)),
        ("ed", 3, 0.333, (3,)),
        ("olss", 4, 0.005, (100, "olss")),
    ],
)
@pytest.mark.parametrize("kind", ["inpaint", "image-to-image"])
def test_a_strength_has_to_leave_a_step(problems, kind, scheme, steps, strength, of):
    sampler, fewest = {"scheme": scheme, "steps": steps}, 100 if scheme == "olss" else steps
    reads(
        problems(tasks__1__kind=kind, tasks__1__sampler=sampler, tasks__1__strength=strength),
        "tasks[1].strength",
        f"{strength:g}",
        *of,
        f"1/{fewest}",
    )


def test_a_strength_that_leaves_one_step_is_right(tmp_path):
    recipe = load_recipe(write(tmp_path, tasks__1__sampler={"scheme": "ed", "steps": 4}, tasks__1__strength=0.25))
    assert recipe.tasks[1].strength == 0.25


STICKERS = {"source": "builtin", "name": "sticker"}


def test_text_to_image_takes_inputs_instead_of_prompts(tmp_path):
    recipe = load_recipe(write(tmp_path, tasks__0__prompts=None, tasks__0__inputs=STICKERS))
    assert recipe.tasks[0].inputs == BuiltinInputs(**STICKERS)


@pytest.mark.parametrize("change", [{"tasks__0__inputs": STICKERS}, {"tasks__0__prompts": None}])
def test_prompts_and_inputs_are_a_choice(problems, change):
    reads(problems(**change), "tasks[0].inputs", "prompts")


def test_a_task_says_that_it_has_no_adapter(tmp_path, problems):
    recipe = json.loads(json.dumps(RECIPE["tasks"][0]))
    del recipe["adapter"]
    reads(problems(tasks__0=recipe), "tasks[0].adapter", "adapter: mine")


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("tasks__1__sampler__steps", 0, ("tasks[1].sampler.steps", 1, 50, 0)),
        ("tasks__0__sampler__steps", 101, ("tasks[0].sampler.steps", 1, 100, 101)),
        ("tasks__1__guidance", 0.5, ("tasks[1].guidance", "1.0", "50.0")),
        ("tasks__1__strength", 0, ("tasks[1].strength", "0.0", "1.0", 0)),
        ("tasks__1__strength", 1.5, ("tasks[1].strength", "0.0", "1.0")),
        ("tasks__0__prompts", [], ("tasks[0].prompts", 1, 0)),
        ("tasks__0__prompts", [""], ("tasks[0].prompts[0]", 1, 0)),
        ("tasks", [], (1, 0)),
        ("quad__profile__headroom", 0.9, ("quad.profile.headroom", "1.0", "16.0")),
        ("precision__activations", "w8a4", ("precision.activations", "w8a4")),
        ("precision__activations", "mixed", ("precision.activations", "mixed")),
        ("precision__activations", "mixed-130", ("precision.activations", "mixed-130")),
        (
            "quad__profile",
            "unified",
            ("unified", "quad.profile.scheme"),
        ),
        ("measure", {"order": "random"}, ("measure.order", "random")),
    ],
)
def test_a_value_out_of_bounds_says_what_was_expected(problems, place, value, problem):
    reads(problems(**{place: value}), *problem)


@pytest.mark.parametrize(
    ("word", "in_full"),
    [
        ("w8a16", {"scheme": "w8a16"}),
        ("w8a8", {"scheme": "w8a8"}),
        ("w8a32", {"scheme": "float"}),
        ("mixed-30", {"scheme": "mixed", "int8_percent": 30}),
    ],
)
def test_activations_are_given_in_the_word_that_reports_print(tmp_path, word, in_full):
    recipe = load_recipe(write(tmp_path, precision__activations=word))
    assert recipe.precision.label == word
    assert recipe == load_recipe(write(tmp_path, precision__activations=in_full))
    choices = recipe_schema()["$defs"]["Precision"]["properties"]["activations"]["anyOf"]
    assert re.search(next(choice["pattern"] for choice in choices if "pattern" in choice), word)


def test_the_digest_counts_what_defaults_mean(tmp_path):
    plain = recipe_digest(load_recipe(write(tmp_path)))
    assert recipe_digest(load_recipe(write(tmp_path, measure={"warmup": 2}, tasks__1__strength=1))) == plain
    assert recipe_digest(load_recipe(write(tmp_path, measure={"warmup": 3}))) != plain


def test_the_digest_is_the_same_in_another_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert recipe_digest(load_recipe(write(tmp_path))) == recipe_digest(load_recipe(write(tmp_path / "elsewhere")))


def test_every_model_of_the_schema_is_described_and_takes_no_unknown_keys():
    schema = recipe_schema()
    for name, model in {"Recipe": schema, **schema["$defs"]}.items():
        assert model["description"].endswith("."), name
        assert not model["additionalProperties"], name


def test_every_key_of_the_schema_is_described_in_a_sentence_that_names_the_default_of_a_number():
    assert poorly_described(recipe_schema()) == []


def test_a_key_without_a_sentence_or_without_its_default_is_noticed():
    properties = {
        "bare": {"type": "string"},
        "unfinished": {"description": "no sentence"},
        "unnamed": {"default": 2, "description": "This many are made."},
        "named": {"default": 2, "description": "This many are made. The default is 2."},
    }
    poor = poorly_described({"title": "Model", "properties": properties, "$defs": {}})
    assert [line.partition(":")[0] for line in poor] == ["Model.bare", "Model.unfinished", "Model.unnamed"]


def test_a_key_that_must_be_given_has_a_value_to_paste() -> None:
    schema = recipe_schema()
    for name, model in {"Recipe": schema, **schema["$defs"]}.items():
        for key in model.get("required", []):
            assert {"const", "enum", "examples"} & model["properties"][key].keys(), f"{name}.{key}"


def test_what_is_proposed_for_missing_keys_makes_a_valid_recipe(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("schema_version: 1\n")
    with pytest.raises(SpecError) as refused:
        load_recipe(path)
    pasted = re.findall(r"for example `(.*)`$", str(refused.value), re.MULTILINE)
    path.write_text("schema_version: 1\n" + "\n".join(pasted))
    assert load_recipe(path).tasks[0].name == "mine"


def test_the_text_of_a_recipe_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart")
    (tmp_path / "again.yaml").write_text(recipe.terms.text or "")
    assert recipe_digest(load_recipe(tmp_path / "again.yaml")) == recipe_digest(recipe)
