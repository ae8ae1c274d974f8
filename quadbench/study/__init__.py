"""Studies over several runs: sweeps of a recipe's keys, and comparisons of two builds."""
