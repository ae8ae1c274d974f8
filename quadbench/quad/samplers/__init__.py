"""Samplers: diffusion samplers as tables of coefficients, one file per algorithm (docs/formats.md, "Sampler tables")."""
