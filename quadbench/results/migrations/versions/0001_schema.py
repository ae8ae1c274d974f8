"""The first revision of the database schema, for Alembic."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing: `schema.upgrade` creates the tables of a new database from the mapped classes."""
