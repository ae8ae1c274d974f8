"""Nightly regression runs: cases measured on devices every night, verdicts on changes, history, bisection and reports."""
