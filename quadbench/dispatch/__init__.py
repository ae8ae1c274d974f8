"""Run recipes on a farm: split a run into jobs, execute jobs on workers, and collect the results into a run."""
