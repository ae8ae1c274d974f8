"""Model: a foundation model -> its modules in float, its LoRA sites as inputs, and its float ONNX graphs."""
