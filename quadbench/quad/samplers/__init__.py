"""Samplers: a scheme, its steps and a noise schedule -> a table of coefficients (docs/design.md, "Sampler tables")."""
