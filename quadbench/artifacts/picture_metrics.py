"""Picture metrics: what each metric of pictures is called, is and gets better by; `quadbench.quality` measures them."""

from quadbench.artifacts.pixels import PSNR_CAP_DB
from quadbench.artifacts.run_record import Better, Metric

_ALL = (
    Metric(
        name="psnr",
        title="PSNR",
        unit="dB",
        better=Better.HIGHER,
        definition=f"Peak signal-to-noise ratio of 8-bit RGB at its own size, at most {PSNR_CAP_DB:g}; mean over images.",
    ),
    Metric(
        name="psnr_masked",
        title="PSNR in the mask",
        unit="dB",
        better=Better.HIGHER,
        definition="The same of the pixels that inpainting paints anew: those outside are the input's own, and raise the PSNR.",
    ),
    Metric(
        name="ssim",
        title="SSIM",
        unit="",
        better=Better.HIGHER,
        definition="Structural similarity (Wang et al. 2004) of RGB in [0, 1], data range 1, Gaussian window of 11, sigma 1.5, "
        "at the image's own size; mean over channels and images.",
    ),
    Metric(
        name="st_lpips",
        title="ST-LPIPS",
        unit="",
        better=Better.LOWER,
        definition="Shift-tolerant perceptual distance, AlexNet (Ghildyal and Liu 2022), at the image's own size; "
        "mean over images. Not LPIPS: the scales differ.",
    ),
    Metric(
        name="kid",
        title="KID (EfficientNet-Lite0)",
        unit="",
        better=Better.LOWER,
        definition="Unbiased MMD^2, kernel (x.y/d + 1)^3, of EfficientNet-Lite0's pooled features, images stretched "
        "to 224 x 224. It can be negative, says little over few images and is not comparable with a KID on Inception's features.",
    ),
    Metric(
        name="fid",
        title="FID",
        unit="",
        better=Better.LOWER,
        definition="Fréchet distance of the given Inception network's features, images stretched to 299 x 299. "
        "Biased upwards over few images: compare only equal n.",
    ),
    Metric(
        name="lpips",
        title="LPIPS",
        unit="",
        better=Better.LOWER,
        definition="Perceptual distance (Zhang et al. 2018) by the given network, at the image's own size; mean over images.",
    ),
    Metric(
        name="clip_similarity",
        title="CLIP similarity",
        unit="",
        better=Better.HIGHER,
        definition="Cosine of the given CLIP network's embeddings of both images, stretched to 224 x 224; mean over images.",
    ),
    Metric(
        name="clip_direction",
        title="CLIP direction",
        unit="",
        better=Better.HIGHER,
        definition="Cosine of the ways from the input's CLIP embedding to those of both images, stretched to 224 x 224; "
        "no captions; mean over images.",
    ),
    Metric(
        name="dino_structure",
        title="DINO structure",
        unit="",
        better=Better.LOWER,
        definition="Mean squared difference of the self-similarities of the given DINO network's last keys (Tumanyan et al. "
        "2022), images stretched to 224 x 224; mean over images.",
    ),
)
PICTURE_METRICS = {metric.name: metric for metric in _ALL}
