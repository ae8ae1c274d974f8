"""Model: loading a foundation model in float, with its LoRA weights as inputs, and exporting it as float ONNX graphs."""
