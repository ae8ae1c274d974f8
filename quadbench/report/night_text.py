"""Night text: a night as it is told -> what a terminal shows above its sentence."""

from collections.abc import Iterator

from quadbench.report.night import DeviceNight, NightView
from quadbench.report.night_findings import NightFinding
from quadbench.report.text_table import TextTable
from quadbench.report.units import percent, plural

_FIGURES_SHOWN = 3


def finding_lines(finding: NightFinding) -> Iterator[str]:
    """Write a finding: what it is, the figures, why, since when, whose it is, and the command that comes next."""
    yield f"{finding.kind}: {', '.join(finding.cases)} on {finding.address}"
    for line in figure_lines(finding):
        yield f"    {line}"
    yield f"    why: {finding.figures[0].cause}"
    if finding.doubt:
        yield f"    doubt: {finding.doubt}"
    if finding.since:
        yield f"    since: {finding.since}"
    if finding.owners:
        yield f"    owner: {', '.join(finding.owners)}"
    yield f"    next: {finding.next_step}"


def device_table(view: NightView) -> TextTable:
    """Return the devices, with what was noticed and how often each alarms falsely."""
    return TextTable(
        title="Devices",
        columns=("Device", "Clean", "Noticed", "Changed since the night before", "False alarms"),
        numeric=(False, True, False, False, False),
        rows=tuple(_device_cells(device) for device in view.devices),
        notes=(
            "False alarms: the share of cases that were called worse though neither files nor device had changed, "
            "over all nights so far; with its interval at 95 %.",
        ),
    )


def rate_words(device: DeviceNight) -> str:
    """Write how often a device alarms falsely."""
    rate = device.rate
    if rate is None or rate.low is None or rate.high is None:
        return "not known yet"
    return f"{rate.alarms} in {rate.tries}, {percent(rate.low)} to {percent(rate.high)}"


def change_lines(changes: dict[str, tuple[str, str]]) -> Iterator[str]:
    """Write what changed, a text for each: `Android: 15 → 16`."""
    return (f"{name}: {before} → {now}" for name, (before, now) in changes.items())


def figure_lines(finding: NightFinding) -> list[str]:
    """Write the first figures of a finding, and how many more there are."""
    told = [str(figured) for figured in finding.figures if figured.figure]
    more = len(told) - _FIGURES_SHOWN
    return told[:_FIGURES_SHOWN] + ([f"and {plural(more, 'other figure')}"] if more > 0 else [])


def _device_cells(device: DeviceNight) -> tuple[str, ...]:
    wrong = [*device.wrong, *(caveat.words for caveat in device.caveats)]
    changes = "; ".join(change_lines(device.environment))
    return device.address, f"{device.clean} of {device.cases}", "; ".join(wrong) or "–", changes or "–", rate_words(device)
