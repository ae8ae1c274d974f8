"""Quantize: float graphs and their feeds -> ranges, encodings and quantized graphs."""
