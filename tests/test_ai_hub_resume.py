"""AI Hub's resumption: each fault on the way has its own clear error, and a second run does only what was not done."""

from pathlib import Path

import pytest

pytest.importorskip("qai_hub")
pytest.importorskip("onnx")

from support.ai_hub_graphs import Sources, compile_at_hub, target_of
from support.ai_hub_service import AiHubService, Faults
from support.sentences import raising

from quadbench.errors import BuildError, ServiceError

ALWAYS = 1000
LAST = "shared/vae_decoder.onnx"
# fault: (the step that it begins with, what goes wrong from then on, the error, what a second run uploads and submits)
FAULTS: dict[str, tuple[str, dict[str, object], type[Exception], str, list[str], list[str]]] = {
    "rate limit": (f"upload {LAST}", {"rate_limited": ALWAYS}, ServiceError, "", [], [LAST]),
    "service away": (
        f"upload {LAST}",
        {"unavailable": ALWAYS},
        ServiceError,
        LAST,
        [LAST],
        [LAST],
    ),
    "failed job": (f"upload {LAST}", {"failing": {LAST: "out of memory"}}, ServiceError, "", [], [LAST]),
    "broken upload": (f"upload {LAST}", {"broken_uploads": ALWAYS}, ServiceError, LAST, [LAST], [LAST]),
    "expired token": (f"upload {LAST}", {"is_token_expired": True}, ServiceError, "", [LAST], [LAST]),
    "slow queue": (f"upload {LAST}", {"never_done": True}, ServiceError, 2, [], []),
    "broken download": ("download shared", {"truncated_downloads": ALWAYS}, ServiceError, "", [], []),
    "damaged download": ("download shared", {"damaged_downloads": ALWAYS}, BuildError, "", [], []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_second_run_does_only_what_the_fault_kept_from_being_done(
    fault: str, hub: AiHubService, hub_graphs: Sources, tmp_path: Path
) -> None:
    begins, faults, kind, words, uploads, submissions = FAULTS[fault]
    (unet, *_, decoder), folder = hub_graphs
    graphs = ([unet, decoder], folder)

    def break_something(step: str) -> None:
        if step.startswith(begins):
            hub.faults = Faults(**faults)

    with raising(kind, words):
        compile_at_hub(graphs, tmp_path, target_of(timeout_s=2), break_something)
    hub.faults = Faults()
    uploaded, submitted = len(hub.uploads), len(hub.submissions)
    assert [graph.file.path for graph in compile_at_hub(graphs, tmp_path).graphs] == [graph.file.path for graph in graphs[0]]
    assert hub.uploads[uploaded:] == uploads
    assert [job.compile_job.name.split()[1] for job in hub.submissions[submitted:]] == submissions
