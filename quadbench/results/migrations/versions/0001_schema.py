"""The first schema, with which databases began."""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing: `schema.upgrade` makes the tables of a new database as the code maps them."""
