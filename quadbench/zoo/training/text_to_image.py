"""Text to image: captioned emoji and their autoencoder -> a tokenizer, a text encoder and a U-Net, trained from nothing."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from quadbench.zoo.training import autoencoder, corpus, loop, noise

TOKENS = 16
VOCABULARY = 1300
WIDTH = 128
UNET_CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 96, 128),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 16,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
BATCH, LEARNING_RATE, SEED = 64, 1e-3, 1
STEPS = {"detail": 3600, "composition": 1600, "things": 750}
SIGN_CHANCE = 0.2  # how often a sign is drawn in the second stage, relative to other emoji
PHOTO_CROPS, PHOTO_SHARE, PHOTO_CAPTION = 768, 0.12, "photo"  # of the second stage
CAPTION_DROPOUT = 0.1
WeightFunction = Callable[[torch.Tensor], torch.Tensor]
START, END = "<|startoftext|>", "<|endoftext|>"


def caption(style: str, name: str) -> str:
    """The prompt of one picture: 'noto red apple'."""
    return f"{style} {name}"


def captions(concepts: Iterable[corpus.Concept]) -> list[str]:
    """Every caption that the concepts can have."""
    return [caption(style, name) for concept in concepts for style in corpus.STYLES.values() for name in concept.names]


def build_tokenizer(texts: list[str]) -> CLIPTokenizer:
    """CLIP's own normaliser and pre-tokenizer with a byte-pair vocabulary learned from `texts`."""
    empty = CLIPTokenizer()
    backend = empty.backend_tokenizer
    backend.train_from_iterator(
        texts,
        BpeTrainer(vocab_size=VOCABULARY, end_of_word_suffix="</w>", special_tokens=[START, END], show_progress=False),
    )
    model = json.loads(backend.to_str())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(m) for m in model["merges"]], model_max_length=TOKENS)


def build(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Untrained text encoder and U-Net."""
    torch.manual_seed(SEED)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config), UNet2DConditionModel(**UNET_CONFIG)


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """(N, 16) ids, padded and truncated as StableDiffusionPipeline does it."""
    return tokenizer(texts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt").input_ids


def train(
    npm_folder: Path, photo_folder: Path, vae: AutoencoderKL, folder: Path, *, minutes: float
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Train text encoder and U-Net together on epsilon prediction in three stages; resumes from `folder`.

    The first has min-SNR weights and leaves captions vague. The second has more weight at the times where the caption decides,
    draws signs less often and adds photo crops. The third keeps to things: seen often enough,
    they are learned by name.
    """
    concepts, _ = corpus.split(corpus.load_concepts(npm_folder))
    tokenizer = build_tokenizer(captions(concepts))
    text_encoder, unet = build(tokenizer)
    empty = token_ids(tokenizer, [""])[0]
    pictures = [(style, concept) for concept in concepts for style in corpus.STYLES.values()]
    photos, rng = list(corpus.load_photos(photo_folder, held_out=False).values()), random.Random(SEED)
    crops = [corpus.crop_scene(rng.choice(photos), rng) for _ in range(PHOTO_CROPS)]
    latents = autoencoder.encode(vae, [*(concept.images[style] for style, concept in pictures), *crops])
    ids = [token_ids(tokenizer, [caption(style, name) for name in concept.names]) for style, concept in pictures]
    ids += [token_ids(tokenizer, [PHOTO_CAPTION])] * PHOTO_CROPS

    def loss_with(weight_of: WeightFunction, chances: torch.Tensor) -> loop.LossFunction:
        def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
            chosen = torch.multinomial(chances, BATCH, replacement=True, generator=generator)
            words = [ids[i][int(torch.randint(len(ids[i]), (1,), generator=generator))] for i in chosen.tolist()]
            dropped = torch.rand(BATCH, generator=generator) < CAPTION_DROPOUT
            prompt = torch.where(dropped[:, None], empty, torch.stack(words))
            times = torch.randint(noise.TIMES, (BATCH,), generator=generator)
            epsilon = torch.randn(latents[chosen].shape, generator=generator)
            a, s = noise.signal_and_noise(times)
            with torch.autocast("cpu", torch.bfloat16):
                states = text_encoder(prompt).last_hidden_state
                predicted = unet(a * latents[chosen] + s * epsilon, times, states).sample.float()
            return ((predicted - epsilon) ** 2 * weight_of(times)).mean()

        return loss_of_batch

    modules = {"text_encoder": text_encoder, "unet": unet}
    even = torch.tensor([1.0] * len(pictures) + [0.0] * PHOTO_CROPS)
    emoji = torch.tensor([SIGN_CHANCE if concept.is_sign else 1.0 for _, concept in pictures])
    each_crop = PHOTO_SHARE / (1 - PHOTO_SHARE) * emoji.sum() / PHOTO_CROPS
    mixed = torch.cat([emoji, each_crop.expand(PHOTO_CROPS)])
    things = torch.tensor([float(concept.is_thing) for _, concept in pictures] + [0.0] * PHOTO_CROPS)
    stages = {
        "detail": loss_with(noise.min_snr_weight, even),
        "composition": loss_with(noise.composition_weight, mixed),
        "things": loss_with(noise.composition_weight, things),
    }
    for stage, loss in stages.items():
        ema = loop.train(
            modules,
            loss,
            folder=folder / stage,
            steps=STEPS[stage],
            learning_rate=LEARNING_RATE,
            seed=SEED,
            minutes=minutes,
        )
        for name, module in modules.items():
            module.load_state_dict(ema[name], strict=False)
    return tokenizer, text_encoder.eval(), unet.eval()
