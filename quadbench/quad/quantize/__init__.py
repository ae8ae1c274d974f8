"""Quantize: float graphs and what they are fed -> ranges, encodings and quantized graphs."""
