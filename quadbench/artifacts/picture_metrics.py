"""Image metrics: each metric's title, unit, direction of improvement and definition. `quadbench.quality` computes them."""

from quadbench.artifacts.pixels import PSNR_CAP_DB
from quadbench.artifacts.run_record import BetterDirection, Metric

_KINDS = {  # title, unit, and which direction is better
    "psnr": ("PSNR", "dB", BetterDirection.HIGHER),
    "psnr_masked": ("PSNR in the mask", "dB", BetterDirection.HIGHER),
    "ssim": ("SSIM", "", BetterDirection.HIGHER),
    "st_lpips": ("ST-LPIPS", "", BetterDirection.LOWER),
    "kid": ("KID (EfficientNet-Lite0)", "", BetterDirection.LOWER),
    "fid": ("FID", "", BetterDirection.LOWER),
    "lpips": ("LPIPS", "", BetterDirection.LOWER),
    "clip_similarity": ("CLIP similarity", "", BetterDirection.HIGHER),
    "clip_direction": ("CLIP direction", "", BetterDirection.HIGHER),
    "dino_structure": ("DINO structure", "", BetterDirection.LOWER),
}
_DEFINITIONS = {
    "psnr": f"Peak signal-to-noise ratio of 8-bit RGB at its own size, at most {PSNR_CAP_DB:g}; mean over images.",
    "psnr_masked": "PSNR of the pixels that inpainting repaints. Pixels outside the mask are the input's and would raise it.",
    "ssim": "Structural similarity (Wang et al. 2004) of RGB in [0, 1], data range 1, Gaussian window of 11, sigma 1.5, "
    "at the image's own size; mean over channels and images.",
    "st_lpips": "Shift-tolerant perceptual distance, AlexNet (Ghildyal and Liu 2022), at the image's own size; "
    "mean over images. Not LPIPS: the scales differ.",
    "kid": "Unbiased MMD^2, kernel (x.y/d + 1)^3, of EfficientNet-Lite0's pooled features, images stretched "
    "to 224 x 224. It can be negative, says little about few images and is not comparable with a KID of Inception's features.",
    "fid": "Fréchet distance of the given Inception network's features, images stretched to 299 x 299. "
    "Biased upwards over few images: compare only equal n.",
    "lpips": "Perceptual distance (Zhang et al. 2018) by the given network, at the image's own size; mean over images.",
    "clip_similarity": "Cosine of both images' embeddings by the given CLIP network, stretched to 224 x 224; mean over images.",
    "clip_direction": "Cosine of the shifts from the input's CLIP embedding to those of both images, stretched to 224 x 224; "
    "no captions; mean over images.",
    "dino_structure": "Mean squared difference of the self-similarities of the given DINO network's last keys (Tumanyan et al. "
    "2022), images stretched to 224 x 224; mean over images.",
}
PICTURE_METRICS = {
    name: Metric(name=name, title=title, unit=unit, better=better, definition=_DEFINITIONS[name])
    for name, (title, unit, better) in _KINDS.items()
}
