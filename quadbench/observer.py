"""The interface through which a pipeline reports its progress, for example to a progress display."""

from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord


class Observer(Protocol):
    """A receiver of progress events. Several threads may call it."""

    def step(self, stage: str, detail: str, share: float | None = None) -> None:
        """Report that a stage begins its next step. `share` is the finished fraction of the stage, or None if unknown."""
        ...

    def built(self, bundle: Bundle) -> None: ...

    def reused(self, stage: str, digest: str) -> None: ...

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deployed(self, deployment: Deployment) -> None: ...

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def painted(self, device: str, task: str, images: int) -> None:
        """Report that a launch has generated another image of a task; `images` is the count so far."""
        ...

    def lost(self, device: str, reason: str, wait_s: float) -> None:
        """Report that a device was lost and is waited for, at most `wait_s` seconds."""
        ...

    def regained(self, device: str, away_s: float) -> None:
        """Report that a lost device is back after `away_s` seconds."""
        ...

    def record(self, record: RunRecord) -> None: ...
