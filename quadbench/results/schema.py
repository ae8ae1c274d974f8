"""Schema: a connection -> its database's tables as this quadbench knows them, by migrations that are run one after the other."""

from collections.abc import Sequence
from functools import cache

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from quadbench.errors import ArtifactError


def upgrade(connection: sa.Connection, name: str) -> bool:
    """Bring the schema up to date within the transaction. False if it was; `name` is the database's, for messages.

    Raises:
        ArtifactError: the schema is of a newer quadbench, or cannot be told.
    """
    if is_current(connection, name):
        return False
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    return True


def is_current(connection: sa.Connection, name: str) -> bool:
    """Say whether the schema is the one that this quadbench knows, and not an older one or none at all.

    Raises:
        ArtifactError: as `upgrade`.
    """
    current, revisions = revision(connection, name), known()
    if current is not None and current not in revisions:
        raise ArtifactError(
            f"{name} has schema '{current}', which this quadbench does not know; known: {', '.join(sorted(revisions))}",
            hint="it was written by a newer quadbench; upgrade, or use another results folder",
        )
    return current == revisions[0]


def revision(connection: sa.Connection, name: str) -> str | None:
    """Return the schema that the database says it has; None for one without tables of quadbench.

    Raises:
        ArtifactError: it has two.
    """
    try:
        return MigrationContext.configure(connection).get_current_revision()
    except CommandError as error:
        raise ArtifactError(
            f"{name} is damaged: its schema cannot be told: {error}", hint="restore it from a backup, or begin another database"
        ) from error


@cache
def known() -> Sequence[str]:
    """Return every schema that this quadbench knows, its own first."""
    return [migration.revision for migration in ScriptDirectory.from_config(_config()).walk_revisions()]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "quadbench.results:migrations")
    return config
