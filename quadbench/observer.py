"""Observer: what a pipeline tells whoever watches it."""

from typing import Protocol

from quadbench.artifacts import Bundle, Deployment, RunRecord
from quadbench.plan import LaunchPlan


class Observer(Protocol):
    """Is told what happens while it happens; may be called from several threads."""

    def step(self, stage: str, detail: str) -> None: ...

    def built(self, bundle: Bundle) -> None: ...

    def reused(self, stage: str, digest: str) -> None: ...

    def sent(self, device: str, sent_bytes: int, total_bytes: int) -> None: ...

    def deployed(self, deployment: Deployment) -> None: ...

    def launch(self, device: str, launch: LaunchPlan, number: int, total: int) -> None: ...

    def record(self, record: RunRecord) -> None: ...
