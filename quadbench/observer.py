"""The interface to which a pipeline reports its progress. A progress display implements it, for example."""

from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord


class Observer(Protocol):
    """The interface of an object that receives progress events of a pipeline. Its methods may be called from several threads."""

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        """Report the start of a stage's next step. `share` is the finished fraction of the stage (0 to 1), or None if unknown."""
        ...

    def bundle_built(self, bundle: Bundle) -> None: ...

    def artifact_reused(self, stage: str, digest: str) -> None: ...

    def bytes_sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deploy_done(self, deployment: Deployment) -> None: ...

    def launch_started(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def image_done(self, device: str, task: str, images: int) -> None:
        """Report that a launch has generated an image of a task. `images` counts all images of the launch until now."""
        ...

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        """Report that the connection to a device was lost, and that the run waits at most `wait_s` seconds for the device."""
        ...

    def device_back(self, device: str, away_s: float) -> None:
        """Report that a lost device is back after `away_s` seconds."""
        ...

    def record_stored(self, record: RunRecord) -> None: ...
