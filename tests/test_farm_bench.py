"""What a night wants of a farm becomes jobs; a case of which no job can be made is said to be so, and costs no other."""

from dataclasses import replace
from pathlib import Path

from support.bundles import bundle_of
from support.watcher import Silent

from quadbench.artifacts import Bundle
from quadbench.dispatch.offers import given_device
from quadbench.dispatch.submission import Farm
from quadbench.farm.job_status import listed_jobs
from quadbench.farm.store.opening import open_store
from quadbench.farm.workers import NewWorker, Workers
from quadbench.measure import Budget
from quadbench.nightly.bench import Wanted
from quadbench.nightly.farm_bench import OfFarm
from quadbench.recipe import Terms
from quadbench.results.engine import open_engine
from quadbench.results.layout import Layout
from quadbench.results.manifest import file_ref, publish
from quadbench.statistics import LOOKS
from quadbench.study.chosen import Chosen


def chosen(folder: Path) -> Chosen:
    """A bundle that a farm's store takes."""

    def fill(temporary: Path) -> Bundle:
        (temporary / "profile.json").write_text("{}")
        return bundle_of(file_ref(temporary, temporary / "profile.json"), digest="a" * 64)

    return Chosen(source="reference", changes={}, bundle=publish(folder / "bundle", fill))


def test_a_case_whose_order_is_too_long_for_the_queue_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    engine, side = open_engine(tmp_path / "farm.sqlite"), chosen(tmp_path)
    Workers(engine).note(NewWorker(name="desk", host="h1", version="1", capabilities=(), devices=(given_device("virtual:s25"),)))
    farm = Farm(engine=engine, store=open_store(tmp_path / "store"))
    bench = OfFarm(night_id="phones-one", farm=farm, layout=Layout(tmp_path / "results"), observer=Silent())
    long = replace(side, terms=Terms(text="x" * 70_000))
    wanted = [
        Wanted(case=case, a=side, b=b, words=("virtual:s25",), looks=LOOKS) for case, b in (("long", long), ("short", side))
    ]
    came = {one.case: one for one in bench.launched(wanted, Budget(ends_at=0.0))}  # which cancels what waits
    assert "a job to compare has a payload of 7" in (came["long"].why or "")
    assert not came["long"].may_pass
    assert "the time of the night was over before it" in (came["short"].why or "")
    assert [job.payload.get("case") for job in listed_jobs(engine, "phones-one").jobs if job.kind == "compare"] == ["short"]
    engine.dispose()
