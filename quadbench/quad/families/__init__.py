"""Families: what builds ask of a family of models, one file each. They run without torch, which reads classes by their names.

family.py  the questions: parts, text encoders, conditions of the denoiser, pipelines of references
sd1.py     Stable Diffusion 1.x
sd2.py     Stable Diffusion 2.x
sdxl.py    Stable Diffusion XL, SSD-1B, Vega
"""
