"""Observer: the events that a pipeline reports to whoever watches it."""

from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, LaunchPlan, RunRecord


class Observer(Protocol):
    """Is told what happens while it happens; may be called from several threads."""

    def step(self, stage: str, detail: str, share: float | None = None) -> None:
        """A stage goes on to its next step; `share` of the stage is done, None where that is not known."""
        ...

    def built(self, bundle: Bundle) -> None: ...

    def reused(self, stage: str, digest: str) -> None: ...

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deployed(self, deployment: Deployment) -> None: ...

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def painted(self, device: str, task: str, images: int) -> None:
        """A launch has painted one more image, of a task: so many by now."""
        ...

    def lost(self, device: str, reason: str, wait_s: float) -> None:
        """A device was lost, and is waited for, at most so long."""
        ...

    def regained(self, device: str, away_s: float) -> None:
        """It is back, as it was."""
        ...

    def record(self, record: RunRecord) -> None: ...
