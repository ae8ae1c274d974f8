"""Model: loading a float foundation model, making LoRA weights inputs of its U-Net, and exporting it as float ONNX graphs.

foundation.py     reading and checking models, random models, tokenizers, conditions of steps
weight_faults.py  NaN, infinite and implausible weights, integers in place of floats
lora.py           the U-Net with LoRA weights and conditions as inputs; their names and shapes
lora_sites.py     LoRA branches of an exported U-Net: other ranks, none, or merged into the weights
float_graphs.py   ONNX export of text encoder, VAE and U-Net; plain attention
initializers.py   graphs whose weights are in an external file; ONNX Runtime sessions
"""
