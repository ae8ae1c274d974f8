"""Quad: Recipe -> Bundle, with torch. `cache`, `model_files` and `inputs` do without, so that a bundle is reused quickly."""
