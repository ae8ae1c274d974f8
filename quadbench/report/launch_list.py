"""Launch list: a run's launches -> those that a page has room for, and a sentence that says which are left out; pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from quadbench.report.launches import step_of
from quadbench.report.provenance import Launch
from quadbench.report.units import plural

MOST_LISTED = 200  # launches that are OK, and as many that are not
MOST_NAMED = 20  # launches that are not OK, before everything else


@dataclass(frozen=True, kw_only=True)
class LaunchList:
    """Launches in the order in which they were measured. `left_out` says which are not among them; nothing where all are."""

    launches: tuple[Launch, ...]
    left_out: str


def launch_list(launches: Sequence[Launch]) -> LaunchList:
    """Return all launches; of very many those that are OK evenly, from the first on, and the first that are not."""
    fine = [launch for launch in launches if launch.is_ok]
    wrong = [launch for launch in launches if not launch.is_ok]
    step = step_of(len(fine), MOST_LISTED)
    shown = sorted((*fine[::step], *wrong[:MOST_LISTED]), key=lambda launch: launch.position)
    words = []
    if step > 1:
        words.append(f"of {plural(len(fine), 'launch')} that are OK one in {step} is listed")
    if len(wrong) > MOST_LISTED:
        words.append(f"of {plural(len(wrong), 'launch')} that are not the first {MOST_LISTED} are listed")
    return LaunchList(launches=tuple(shown), left_out="; ".join(words))
