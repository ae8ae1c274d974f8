"""Quantize: computing quantization ranges and encodings of float graphs, and writing quantized (QDQ) graphs."""
