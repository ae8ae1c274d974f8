"""Measure: an installation and what a launch runs -> RunRecord."""
