"""Measurement: run launches of an installed bundle on devices and turn them into records."""
