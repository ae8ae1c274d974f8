"""The results folder and its database: where files are, and how they are written and read."""
