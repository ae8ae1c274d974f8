"""API: what is watched -> answers in JSON under /api, documented by the models that commands print as JSON."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import TypeAdapter

from quadbench.nightly.history_formats import CaseDocument, CaseList
from quadbench.report.night_formats import NightDocument, night_json
from quadbench.report.run_line import RunList
from quadbench.report.view import RunSummary, run_summary
from quadbench.serve.documents import FarmNow, NightList, WorkUnderWay
from quadbench.serve.watched import MOST_PAGES, Watched

Page = Annotated[int, Query(ge=1, le=MOST_PAGES, description="The latest stand on page 1.")]
Name = Annotated[str, Path(max_length=200)]


def api_routes(watched: Watched) -> APIRouter:
    """Return the routes. Times are in nanoseconds, sizes in bytes; null stands for NaN and infinities."""
    router = APIRouter(prefix="/api", responses={401: {"description": "a token is needed"}, 404: {"description": "unknown name"}})

    @router.get("/work", response_model=WorkUnderWay, summary="What commands do at this moment")
    def work() -> Response:
        return _json(WorkUnderWay, watched.work())

    @router.get("/farm", response_model=FarmNow, summary="Devices, workers and jobs at this moment")
    def farm() -> Response:
        return _json(FarmNow, watched.farm())

    @router.get("/runs", response_model=RunList, summary="Stored runs, latest first, without their figures")
    def runs(page: Page = 1) -> Response:
        return _json(RunList, watched.runs(page - 1))

    @router.get("/runs/{run_id}", response_model=RunSummary, summary="A run with its result and figures")
    def run(run_id: Name) -> Response:
        return _json(RunSummary, run_summary(watched.view(run_id), f"/runs/{run_id}/report"))

    @router.get("/nights", response_model=NightList, summary="Nights, latest first")
    def nights(page: Page = 1) -> Response:
        return _json(NightList, watched.nights(page - 1))

    @router.get("/nights/{night_id}", response_model=NightDocument, summary="A night with what it ruled")
    def night(night_id: Name) -> Response:
        return Response(night_json(watched.night(night_id)), media_type="application/json")

    @router.get("/history", response_model=CaseList, summary="Cases of nights on each device, and how they stand")
    def cases(page: Page = 1) -> Response:
        return _json(CaseList, watched.cases(page - 1))

    @router.get("/history/{case}", response_model=CaseDocument, summary="What changed of a case since when")
    def case(case: Name) -> Response:
        return _json(CaseDocument, watched.case(case).document)

    return router


def _json(kind: type[object], value: object) -> Response:
    return Response(TypeAdapter(kind).dump_json(value), media_type="application/json")
