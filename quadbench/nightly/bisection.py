"""Bisection: the subjects that a case ran, in the order of time -> the two between which it changed, by launches in turn."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quadbench.artifacts.night import Measurement, Subject


@dataclass(frozen=True, kw_only=True)
class Bisection:
    """The last subject that is as the first one, and the first that is not; `untold` lie between them and could not be told."""

    last_good: Subject
    first_bad: Subject
    untold: tuple[Subject, ...]


def subjects_of(nights: Sequence[Measurement]) -> tuple[Subject, ...]:
    """Return the subjects of some nights, each where it ran first."""
    return tuple(dict.fromkeys(night.subject for night in nights))


def bisect(subjects: Sequence[Subject], is_changed: Callable[[Subject], bool | None]) -> Bisection:
    """Search between the first subject, which is good, and the last, which is not; None is the answer where it cannot be told.

    Raises:
        ValueError: there are fewer than two subjects.
    """
    if len(subjects) < 2:
        raise ValueError(f"{len(subjects)} subjects; expected the good one, the bad one and those between")
    good, bad, untold = subjects[0], subjects[-1], []
    between = list(subjects[1:-1])
    while between:
        middle = len(between) // 2
        subject = between[middle]
        match is_changed(subject):
            case True:
                bad, between = subject, between[:middle]
            case False:
                good, between = subject, between[middle + 1 :]
            case None:
                untold.append(between.pop(middle))
    within = subjects[subjects.index(good) : subjects.index(bad)]
    return Bisection(last_good=good, first_bad=bad, untold=tuple(subject for subject in untold if subject in within))
