"""Studies over several runs: sweeps of a recipe's keys, and comparisons of two builds.

run_comparison.py   builds to compare, their options; launches two builds A B B A until a verdict; compares stored runs
run_sweep.py        `--over` parsed; each setting built, run, scored; results kept on Ctrl-C
stored_studies.py   finds and reads stored studies
"""
