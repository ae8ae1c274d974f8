"""Copying: a database of records -> another, of either kind, by runs and nights; what is there already stays as it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from quadbench.errors import ArtifactError, StorageError, UserError
from quadbench.results.engine import Source, missing_folder, name_of
from quadbench.results.nights import Nights
from quadbench.results.records import open_records, read_records


@dataclass(frozen=True, kw_only=True)
class CopiedRecords:
    """The outcome of copying: how many records are new in the target, how many were there already, and why others are not.

    `nights` is the number of nights of which the target lacked something.
    """

    stored: int
    present: int
    nights: int
    refused: tuple[str, ...]


def copy_records(source: Source, target: Source, *, notify: Callable[[str], None]) -> CopiedRecords:
    """Copy every run and every night to another database, oldest first. Leases and phones belong to a database and stay there.

    Interrupted, it goes on where it was when it is called again. A record that the target refuses is left out and told, as is a
    run or a night that is damaged.

    Raises:
        UserError: both are the same database, or one is none, or the folder of a target is not there.
        StorageError, ArtifactError: one cannot be opened, read or written.
    """
    stored = present = 0
    refused: list[str] = []
    if folder := missing_folder(target):
        raise UserError(f"'{folder}', where the target would lie, is no folder", hint="make it, or give another target")
    with read_records(source) as old, open_records(target) as new:
        if name_of(old.engine) == name_of(new.engine):
            raise UserError(f"{name_of(old.engine)} cannot be copied to itself", hint="give another target")
        for run_id in reversed(old.run_ids(limit=None)):
            notify(run_id)
            with _telling(refused):
                for record in old.of_run(run_id):
                    with _telling(refused):
                        is_new = new.store(record)
                        stored, present = stored + is_new, present + (not is_new)
        nights = _copied_nights(Nights(old.engine), Nights(new.engine), refused, notify=notify)
    return CopiedRecords(stored=stored, present=present, nights=nights, refused=tuple(refused))


@contextmanager
def _telling(refused: list[str]) -> Iterator[None]:
    """Note what is damaged or refused, which costs nothing else; that a database cannot be used at all ends the copy."""
    try:
        yield
    except StorageError:
        raise
    except ArtifactError as error:
        refused.append(error.message)


def _copied_nights(old: Nights, new: Nights, refused: list[str], *, notify: Callable[[str], None]) -> int:
    """Copy nights with the rulings that stand, and what people acknowledged; return of how many something was new."""
    copied = 0
    for night_id in reversed(old.night_ids()):
        notify(night_id)
        with _telling(refused):
            copied += new.adopt(old.night(night_id))
    there = new.acknowledgements()
    for acknowledgement in old.acknowledgements():
        if acknowledgement not in there:
            new.acknowledge(acknowledgement)
    return copied
