"""Emulated: a run with U-Nets compiled for Qualcomm HTPs -> how far they are, on the emulator, from the CPU at each step."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from quadbench.artifacts import Bundle, CompiledBundle, RunResult, Status, Stored, TaskAssets, Variant
from quadbench.artifacts.held_out import HeldOut, TrajectorySqnr
from quadbench.artifacts.parts import BASE_UNET, file_refs, unets_of
from quadbench.compile.emulator import run_on_emulator
from quadbench.errors import UserError
from quadbench.quad.held_out import along_trajectory
from quadbench.quality.compared import refuse_random
from quadbench.quality.fidelity import Values
from quadbench.quality.latents import TaskModel
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents, read_manifest

INPUTS = 1  # of each task, the first: a run of the built-in U-Net takes the emulator seconds, of a large one hours
TARGETS = "qnn-"
TIMEOUT_S = 6 * 3600.0
HTP_TO_CPU, HTP_TO_FLOAT, CPU_TO_FLOAT = "HTP against CPU", "HTP against float", "CPU against float"

log = logging.getLogger(__name__)


def emulated_trajectories(result: RunResult, layout: Layout, notify: Callable[[str], None]) -> dict[str, HeldOut]:
    """Return by target how the shared U-Net does along each task's trajectory, fed what the float U-Net was.

    Raises:
        UserError: nothing of the run was compiled for a Qualcomm HTP here, or its weights are random.
        ArtifactError: a bundle or compiled bundle is damaged, or no longer there.
        HarnessError: the emulator failed.
    """
    refuse_random(result.bundle)
    ran = {r.compiled_digest: r for r in result.records if r.status is Status.OK and r.target.startswith(TARGETS)}
    if not ran:
        raise UserError(
            f"no launch of run {result.run_id} ran graphs that were compiled here for a Qualcomm HTP",
            hint="run on a phone with a target of the backend qnn, or on virtual:s25?target=qnn",
        )
    judged = {}
    for digest, record in ran.items():
        compiled = read_manifest(layout.compiled_bundle(digest), CompiledBundle)
        bundle = result.stored_on(record.device)
        check_contents(compiled, file_refs(compiled.artifact.graphs))
        check_contents(bundle, file_refs(bundle.artifact))
        where = f"{record.target} for {record.device.profile}" if len(ran) > 1 else record.target
        judged[where] = HeldOut(inputs=INPUTS, trajectories=htp_trajectories(bundle, compiled, notify), clippings=())
    return judged


def htp_trajectories(
    bundle: Stored[Bundle], compiled: Stored[CompiledBundle], notify: Callable[[str], None]
) -> tuple[TrajectorySqnr, ...]:
    """Return for every task the SQNR of HTP against CPU, of HTP against float and of CPU against float, in this order."""
    trajectories: list[TrajectorySqnr] = []
    for task in bundle.artifact.tasks:
        notify(f"{task.name} on the HTP emulator")
        trajectories += _of_task(bundle, compiled, task)
    return tuple(trajectories)


def _of_task(bundle: Stored[Bundle], compiled: Stored[CompiledBundle], task: TaskAssets) -> list[TrajectorySqnr]:
    """Run the float trajectory of the task's first inputs, and the quantized U-Net on all that it went through."""
    exact, shared = (TaskModel.load(bundle, task, variant) for variant in (Variant.FLOAT, Variant.SHARED))
    runs = [exact.run(item) for item in task.items[:INPUTS]]
    feeds = [feed for run in runs for feed in run.feeds]
    of_float = [eps for run in runs for eps in run.eps]
    of_cpu = [shared.predict(feed).numpy() for feed in feeds]
    graph = unets_of(bundle.artifact, compiled.artifact, Variant.SHARED, [task])[BASE_UNET]
    htp_arch = compiled.artifact.tool_versions["htp_arch"]
    of_htp = run_on_emulator(compiled.path(graph.file), htp_arch, [feed | shared.lora for feed in feeds], timeout_s=TIMEOUT_S)
    steps = [index * len(exact.table.steps) // len(run.feeds) for run in runs for index in range(len(run.feeds))]
    pairs = {HTP_TO_CPU: (of_cpu, of_htp), HTP_TO_FLOAT: (of_float, of_htp), CPU_TO_FLOAT: (of_float, of_cpu)}
    return [_trajectory(exact, name, steps, *pair) for name, pair in pairs.items()]


def _trajectory(
    model: TaskModel, name: str, steps: Sequence[int], exact: Sequence[Values], other: Sequence[Values]
) -> TrajectorySqnr:
    sqnr_db, by_step = along_trajectory(model.table.timesteps, steps, exact, [np.asarray(values) for values in other])
    return TrajectorySqnr(task=model.task.name, variant=name, inputs=INPUTS, sqnr_db=sqnr_db, steps=by_step)
