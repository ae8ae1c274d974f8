"""Stable Diffusion 2.x: as 1.x, with another CLIP and linear projections in the U-Net. It does not import torch."""

from dataclasses import replace

from quadbench.quad.families.family import FamilyName
from quadbench.quad.families.sd1 import SD1

SD2 = replace(SD1, name=FamilyName.SD2, text_width=1024, holds=lambda unet: bool(unet.get("use_linear_projection")))
