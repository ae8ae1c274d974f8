"""Quad: Recipe -> Bundle, with torch. `cache`, `sources` and `tasks.inputs` do without, so that a bundle is reused quickly."""
