"""Quad: building quantized bundles (graphs, adapters, task files) from recipes. Modules without torch say so at the top."""
