"""Quantize: computing quantization ranges and encodings of float graphs, and writing quantized (QDQ) graphs.

passes.py       rewriting of GroupNorm, LayerNorm, MatMul and attention masks before quantization
calibration.py  observed ranges, histograms, percentile and least-error ranges, clipped values
encodings.py    scale and zero point from a range; rounding of arrays to integers
qdq.py          QuantizeLinear and DequantizeLinear around each node; weights, biases, constants
quantizer.py    whole quantized graphs; which layers take 8 bits (mixed precision), by noise
fake_quant.py   a quantized graph in torch with gradients, for distillation
merging.py      the merged-at-load U-Net, and the graph that merges adapters
"""
