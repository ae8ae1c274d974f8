"""JUnit: a night as it is told -> JUnit XML: a suite for each device, a test for each figure of each case."""

from collections.abc import Iterator

from junitparser import Error, Failure, JUnitXml, Skipped, TestCase, TestSuite

from quadbench.artifacts.night import RulingKind
from quadbench.report.night import Figured, NightFinding, NightView, subject_name
from quadbench.report.night_words import figure_name, words

_ALL = "all figures"
Tested = tuple[str, str]  # a case, and the name of one of its figures


def night_junit(view: NightView) -> bytes:
    """Return the file. A regression fails, what is missing is an error; what cannot be told or is a device's doing is skipped."""
    xml = JUnitXml(name=words(view.night.name))
    for device in view.devices:
        suite = TestSuite(name=device.address)
        suite.timestamp = view.night.began_at.strftime("%Y-%m-%dT%H:%M:%S")
        measured = [one for one in view.night.measurements if one.device == device.device]
        for one in measured:
            suite.add_property(f"{words(one.case)}: subject", subject_name(one.subject))
        figures = {(words(one.case), figure_name(point.key, point.task)) for one in measured for point in one.points}
        results = _results(view, device.device)
        for case, figure in sorted(figures | results.keys()):
            test = TestCase(name=figure, classname=case)
            if (case, device.address) in view.open:
                test.result = [Skipped("not ruled yet")]
            elif (case, figure) in results:
                test.result = [*_result(*results[case, figure])]
            suite.add_testcase(test)
        xml.add_testsuite(suite)
    xml.update_statistics()  # type: ignore[no-untyped-call]
    text: bytes = xml.tostring()  # type: ignore[no-untyped-call]
    return text


def _results(view: NightView, device: str) -> dict[Tested, tuple[NightFinding, Figured]]:
    """Return what is not clean, by case and figure; of several the worst, which comes first."""
    results: dict[Tested, tuple[NightFinding, Figured]] = {}
    for finding in view.findings:
        for told in finding.figures if finding.place[1] == device else ():
            results.setdefault((words(told.ruling.case), told.figure or _ALL), (finding, told))
    return results


def _result(finding: NightFinding, told: Figured) -> Iterator[Failure | Error | Skipped]:
    message = f"{finding.kind}: {told.cause}"
    match finding.kind:
        case RulingKind.REGRESSION:
            result: Failure | Error | Skipped = Failure(message, finding.kind.value)
        case RulingKind.MISSING:
            result = Error(message, finding.kind.value)
        case RulingKind.INCONCLUSIVE | RulingKind.ENVIRONMENT:
            result = Skipped(message, finding.kind.value)
        case RulingKind.IMPROVEMENT | RulingKind.CLEAN:
            return
    result.text = f"{finding.sentence} Next: {finding.next_step}"
    yield result
