"""Ids: a word that a command takes for an id -> the run that it names, or what there is and what may have been meant."""

from quadbench.artifacts import RunResult
from quadbench.artifacts.names import can_name_file
from quadbench.errors import ArtifactError, UnknownNameError, UserError
from quadbench.results.layout import Layout
from quadbench.results.runs import load_run, run_ids

RUN, SWEEP, COMPARISON, NIGHT = "run", "sweep", "comparison", "night"
_LISTED = 8  # of the latest
_FOLDER_HINT = "quadbench runs lists what this folder holds; --results names another"


def named_run(layout: Layout, run_id: str | None, *wanted: str) -> RunResult:
    """Read the run of an id as `load_run` does; `wanted` are the kinds that the command takes, where a run is not the only one.

    Raises:
        UserError: no run has this id.
        ArtifactError: there is no run at all, or the run is damaged.
    """
    try:
        return load_run(layout, run_id)
    except UnknownNameError as error:
        if can_name_file(error.name) and layout.run(error.name).exists():
            reason = f"run {error.name} has a folder, '{layout.run(error.name)}', and no record in the database"
            hint = "they were removed, none was measured yet, or they lie in another: see $QUADBENCH_DATABASE"
            raise ArtifactError(reason, hint=hint) from error
        raise unknown_id(error.name, layout, *wanted) from error


def unknown_id(word: str, layout: Layout, *wanted: str) -> UserError:
    """Return the error of a word that is the id of none of the `wanted` kinds: of something else, or of nothing stored here."""
    kinds, (*others, last) = stored_ids(layout), wanted or (RUN,)
    expected = f"{', '.join(others)} or {last}" if others else last
    if (kind := kinds.get(word)) and kind not in (*others, last):
        hint = "quadbench history says what nights found" if kind == NIGHT else f"{layout.command('show', word)} shows it"
        return UserError(f"'{word}' is a {kind}; expected a {expected}", hint=hint)
    known = {name: kind for name, kind in kinds.items() if kind in (*others, last)}
    return UnknownNameError(expected, word, known, labels=known if others else {}, most=_LISTED, hint=_FOLDER_HINT)


def stored_ids(layout: Layout) -> dict[str, str]:
    """Return by its id of which kind each thing is that a results folder holds.

    Raises:
        ArtifactError: the database is damaged.
    """
    studies = {path.parent.name: path.stem for path in layout.studies()}  # sweep.json, comparison.json
    return dict.fromkeys(layout.night_ids(), NIGHT) | studies | dict.fromkeys(run_ids(layout, None), RUN)
