"""Export of all samples of a run as a pandas data frame, and as a CSV file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quadbench.artifacts import RunRecord, Sample
from quadbench.report.formatting import csv_cell
from quadbench.results.disk import write_atomic

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {"launch": "int64", "value": "float64", "iteration": "Int64", "step": "Int64", "is_warmup": "bool"}
_COLUMNS: dict[str, Callable[[RunRecord, Sample], Any]] = {
    "run_id": lambda record, _: record.run_id,
    "recipe": lambda record, _: record.recipe_name,
    "bundle_digest": lambda record, _: record.bundle_digest,
    "target": lambda record, _: record.target,
    "device": lambda record, _: record.device.address,
    "serial": lambda record, _: record.device.serial,
    "profile": lambda record, _: record.device.profile,
    "variant": lambda record, _: record.variant.value,
    "launch": lambda record, _: record.launch,
    "status": lambda record, _: record.status.value,
    "started_at": lambda record, _: record.started_at,
    "caveats": lambda record, _: " ".join(caveat.value for caveat in record.caveats),
    "metric": lambda _, sample: sample.metric,
    "value": lambda _, sample: sample.value,
    "task": lambda _, sample: sample.task,
    "component": lambda _, sample: sample.component,
    "iteration": lambda _, sample: sample.iteration,
    "step": lambda _, sample: sample.step,
    "item": lambda _, sample: sample.item,
    "is_warmup": lambda _, sample: sample.is_warmup,
}


def samples_table(records: Iterable[RunRecord]) -> "pd.DataFrame":
    """Return a data frame, one row per sample, with columns for launch fields, sample fields and labels (`label.<name>`)."""
    import pandas as pd

    pairs = [(record, sample) for record in records for sample in record.samples]
    columns = {name: [value_of(*pair) for pair in pairs] for name, value_of in _COLUMNS.items()}
    labels = sorted({name for _, sample in pairs for name in sample.labels})
    columns |= {f"label.{name}": [sample.labels.get(name) for _, sample in pairs] for name in labels}
    return pd.DataFrame(columns).astype(_TYPES)


def write_samples(table: "pd.DataFrame", path: Path) -> None:
    """Write a data frame of a run's samples to a CSV file, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    texts = table.select_dtypes(exclude=["number", "bool"]).astype(object)
    cells = texts.where(texts.isna(), texts.map(str).map(csv_cell))
    write_atomic(path, table.assign(**cells).to_csv(index=False), end="")
