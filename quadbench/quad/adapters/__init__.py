"""Adapters: a LoRA as PEFT, diffusers or kohya's scripts save it -> its low-rank pairs by site, and those as graph inputs."""
