"""Nightly: a night's file and devices -> what got slower, bigger or worse on which of them, and whose doing that is."""
