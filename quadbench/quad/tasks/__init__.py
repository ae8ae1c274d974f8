"""Tasks: the tasks of a recipe -> their inputs, sampler tables, trajectories and reference images."""
