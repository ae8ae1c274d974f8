"""Measurement: run launches of an installed bundle on devices and turn each launch into a record for the database."""
