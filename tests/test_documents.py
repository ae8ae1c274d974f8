"""What commands print as JSON is what the schemas in docs/schemas say."""

import json
from dataclasses import asdict
from pathlib import Path

import jsonschema
import pytest
from support.printed_schemas import SCHEMAS, schema
from support.scripted_harness import World
from support.stored_run import store_run
from support.synthetic_run import make_run

from quadbench.artifacts import Variant
from quadbench.cli import main
from quadbench.cli.console import print_json
from quadbench.cli.result import document_schemas
from quadbench.report.run_line import study_document
from quadbench.report.sweep import Sweep, sweep_points, with_best


def test_the_files_are_what_the_code_says() -> None:
    """Where they are not: python scripts/write_schemas.py, and a new schema_version if a key went or means something else."""
    assert {path.name for path in SCHEMAS.iterdir()} == {f"{name}.schema.json" for name in document_schemas()}
    for name, expected in document_schemas().items():
        assert schema(name) == expected


def test_what_is_printed_is_what_the_schema_says(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    results = store_run(world)
    commands = ((["report", "--fail-if", "shared.psnr_db < 99"], "run"), (["show"], "run"), (["runs"], "runs"))
    for words, name in commands:
        main([*words, "--json", "--results", str(results.root)])
        jsonschema.validate(json.loads(capsys.readouterr().out), schema(name), cls=jsonschema.Draft202012Validator)


def test_a_sweep_is_what_its_schema_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = make_run(tmp_path, variants=(Variant.FLOAT, Variant.SHARED))
    points = tuple(sweep_points({"precision.lora": "int8"}, result, None))
    sweep = Sweep(sweep_id="s", recipe_name="r", keys=("precision.lora",), published=None, points=points, touched=("restyle",))
    print_json(asdict(study_document(with_best(sweep), tmp_path)))
    jsonschema.validate(json.loads(capsys.readouterr().out), schema("sweep"), cls=jsonschema.Draft202012Validator)


def test_the_schemas_see_what_is_wrong() -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"schema_version": 1, "runs": [{"run_id": 3}]}, schema("runs"))
