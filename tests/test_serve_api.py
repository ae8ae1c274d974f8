"""The live page's API answers with what commands print, as its own document says."""

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.live_lab import NIGHT, RUN, work
from support.live_site import Site, served
from support.sentences import says
from support.stored_records import query

pytest.importorskip("fastapi")

from quadbench.results.layout import Layout
from quadbench.results.progress import save_progress
from quadbench.serve.api_documents import document_schemas

ANSWERS = (
    "/api/work",
    "/api/farm",
    "/api/runs",
    f"/api/runs/{RUN}",
    "/api/nights",
    f"/api/nights/{NIGHT}",
    "/api/history",
    "/api/history/restyle",
)


@pytest.mark.parametrize("path", ANSWERS)
def test_the_api_answers_as_its_document_says(site: Site, path: str) -> None:
    document = site.ask("/api/openapi.json").json
    route = path.replace(RUN, "{run_id}").replace(NIGHT, "{night_id}").replace("restyle", "{case}")
    schema = document["paths"][route]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    jsonschema.validate(site.ask(path).json, {**schema, "components": document["components"]})


def test_the_api_answers_with_what_commands_print(site: Site) -> None:
    schemas = document_schemas()
    documents = {
        "/api/runs": "runs",
        f"/api/runs/{RUN}": "run",
        f"/api/nights/{NIGHT}": "night",
        "/api/history/restyle": "history",
    }
    for path, name in documents.items():
        jsonschema.validate(site.ask(path).json, schemas[name], cls=jsonschema.Draft202012Validator)


def test_the_document_of_the_api_has_every_route_and_nothing_else(site: Site) -> None:
    document = site.ask("/api/openapi.json").json
    assert document["openapi"].startswith("3.")
    assert len(document["paths"]) == len(ANSWERS)
    assert {method for path in document["paths"].values() for method in path} == {"get"}


@pytest.mark.parametrize(("path", "known"), [("/api/runs/x", RUN), ("/api/nights/x", NIGHT), ("/api/history/x", "restyle")])
def test_a_program_that_asks_for_what_is_not_there_is_told_what_is(site: Site, path: str, known: str) -> None:
    assert known in site.ask(path).json["error"]


def test_a_stored_run_that_goes_on_is_under_way_and_measures(own_lab: Layout) -> None:
    save_progress(own_lab, "work", replace(work(), run_id=RUN, stage="compile"))
    with served(own_lab) as site:
        assert [run["status"] for run in site.ask("/api/runs").json["runs"]] == ["under way"]
        assert [one["stage"] for one in site.ask("/api/work").json["work"]] == ["measure"]


def test_a_run_that_the_farm_is_at_work_on_is_under_way(own_lab: Layout) -> None:
    query(own_lab.database, f"UPDATE jobs SET run_id = '{RUN}'")
    with served(own_lab) as site:
        assert [run["status"] for run in site.ask("/api/runs").json["runs"]] == ["under way"]
        says(site.ask("/runs").text)


def test_metrics_count_jobs_leases_and_phones(site: Site) -> None:
    families = {one.name: one for one in text_string_to_metric_families(site.ask("/metrics").text)}
    counts = {
        name: {tuple(one.labels.values()): one.value for one in family.samples if one.value} for name, family in families.items()
    }
    at_work = {("job",): 1} if any(device["job"] for device in site.ask("/api/farm").json["devices"]) else {}  # it expires
    assert counts == {
        "quadbench_database_up": {(): 1},
        "quadbench_jobs": {("waiting",): 3},
        "quadbench_leases": at_work | {("person",): 1},
        "quadbench_phones": {("healthy", "device"): 1, ("quarantined", "device"): 1},
    }


def test_metrics_of_a_damaged_database_say_only_that_it_is_away(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout = Layout(tmp_path)
    layout.database.write_text("no database " * 100)
    with served(layout) as site:
        answer = site.ask("/metrics")
    (only,) = text_string_to_metric_families(answer.text)
    assert (answer.status, [(one.name, one.value) for one in only.samples]) == (200, [("quadbench_database_up", 0)])
    assert str(layout.database) in caplog.text


def test_what_is_answered_is_json_without_infinities(site: Site) -> None:
    for path in ANSWERS:
        json.loads(site.ask(path).text, parse_constant=pytest.fail)
