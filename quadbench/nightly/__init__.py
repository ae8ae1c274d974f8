"""Nightly regression runs: recipes or bundles measured on devices every night, with verdicts, history, bisection, reports."""
