"""A regression stands: which night told it first, for how many nights it has stood, and the last night known to be good."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add three columns to the verdicts. In older verdicts they are null: such a regression began in its own night."""
    for column in (sa.Column("since", sa.String()), sa.Column("nights", sa.Integer()), sa.Column("good_night", sa.String())):
        op.add_column("night_rulings", column)
