"""Schema revisions, numbered from the oldest."""
