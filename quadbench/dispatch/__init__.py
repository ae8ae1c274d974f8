"""Dispatch: a run -> jobs that any host of the farm does, and the run again, gathered from what they left."""
