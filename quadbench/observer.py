"""The interface through which a pipeline reports its progress, for example to a progress display."""

from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord


class Observer(Protocol):
    """A receiver of progress events. Several threads may call it."""

    def stage_step(self, stage: str, detail: str, share: float | None = None) -> None:
        """Report that a stage begins its next step. `share` is the finished fraction of the stage, or None if unknown."""
        ...

    def bundle_built(self, bundle: Bundle) -> None: ...

    def artifact_reused(self, stage: str, digest: str) -> None: ...

    def bytes_sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deploy_done(self, deployment: Deployment) -> None: ...

    def launch_started(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def image_done(self, device: str, task: str, images: int) -> None:
        """Report that a launch has generated another image of a task; `images` is the count so far."""
        ...

    def device_lost(self, device: str, reason: str, wait_s: float) -> None:
        """Report that a device was lost and is waited for, at most `wait_s` seconds."""
        ...

    def device_back(self, device: str, away_s: float) -> None:
        """Report that a lost device is back after `away_s` seconds."""
        ...

    def record_stored(self, record: RunRecord) -> None: ...
