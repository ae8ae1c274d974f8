"""Samplers: a scheme, its steps and a noise schedule -> a table of coefficients (docs/formats.md, "Sampler tables")."""
