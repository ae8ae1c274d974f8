"""Quad: building quantized bundles from recipes, with torch except in `cache`, `model_files` and `inputs`."""
