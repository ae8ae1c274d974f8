"""Studies over several runs: sweeps of a recipe's keys, and comparisons of two builds.

comparison_side.py  builds to compare, from recipe, bundle or run with changes; options, goals
run_comparison.py   launches two builds A B B A until a verdict; compares stored runs
run_sweep.py        `--over` parsed; each setting built, run, scored; results kept on Ctrl-C
stored_studies.py   finds and reads stored studies
"""
