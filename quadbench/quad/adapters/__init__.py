"""Adapters: reading LoRA files of PEFT, diffusers and kohya as low-rank pairs per site, and as inputs of the shared graph."""
