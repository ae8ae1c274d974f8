"""Quality: scoring a run's images, latents and noise predictions by their difference from references.

image_scores.py  images of a run or folder against references, by each metric
metrics.py       formulas of image metrics and SQNR; networks that metrics need
networks.py      networks from packages or ONNX files; sha256 checks; preprocessing
trajectories.py  latents and noise predictions step by step; HTP emulator; 100-step teacher
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from quadbench.artifacts.run_record import RunScores, file_refs
from quadbench.harness.event_log import check_image_contents
from quadbench.quality.image_scores import score_folder_images, score_images, score_run_images, with_devices
from quadbench.quality.metrics import ImagePair
from quadbench.quality.networks import parse_network
from quadbench.quality.trajectories import compare_latents, emulated_trajectories
from quadbench.results.disk import require_writable
from quadbench.results.layout import Layout
from quadbench.results.manifest import check_contents
from quadbench.results.stored_runs import find_run, save_scores

__all__ = ["ImagePair", "score_folders", "score_images", "score_run"]


def score_run(
    layout: Layout,
    run_id: str | None = None,
    *,
    metrics: Sequence[str] | None = None,
    weights: Sequence[str] = (),
    with_latents: bool = False,
    with_emulator: bool = False,
    notify: Callable[[str], None] = lambda _step: None,
) -> RunScores:
    """Score the images of a stored run and save the scores. Without a run, the latest is scored.

    Partial scores are kept if a later step fails and the run had no scores. Older scores are only replaced by complete ones.
    `metrics` None means all; `weights` are NAME=PATH@sha256:HEX. `with_latents` runs every task's U-Nets again on this machine;
    `with_emulator` runs those compiled for a Qualcomm HTP on its emulator, which takes minutes.

    Raises:
        QuadbenchError: the run is missing, its weights are random, an image is damaged, or a metric or network does not fit.
    """
    given = {network.name: network for network in map(parse_network, weights)}
    result = find_run(layout, run_id)
    require_writable(layout.scores(result.run_id).parent)
    is_first = not layout.scores(result.run_id).exists()
    for record in result.records:
        check_image_contents(record, layout)
    notify("images")
    scores = RunScores(compared=score_run_images(result, layout, metrics=metrics, weights=given))
    if is_first:
        save_scores(layout, result.run_id, scores)
    if with_emulator:
        scores = replace(scores, emulated=emulated_trajectories(result, layout, notify))
        if is_first:
            save_scores(layout, result.run_id, scores)
    if with_latents:
        for bundle in result.bundles:
            check_contents(bundle, file_refs(bundle.artifact))
        notify("latents")
        latents = [one for bundle in result.bundles for one in with_devices(compare_latents(bundle), bundle, result)]
        scores = replace(scores, compared=(*scores.compared, *latents))
    save_scores(layout, result.run_id, scores)
    return scores


def score_folders(
    images: Path, references: Path, sources: Path | None, *, metrics: Sequence[str] | None, weights: Sequence[str]
) -> RunScores:
    """Score a folder's images against the references in another folder, paired by relative path without suffix.

    Raises:
        QuadbenchError: the folders do not pair, an image cannot be read, or a metric or network does not fit.
    """
    given = {network.name: network for network in map(parse_network, weights)}
    return RunScores(compared=(score_folder_images(images, references, sources, metrics=metrics, weights=given),))
