"""Text to image: captioned pictures and their autoencoder -> a tokenizer, a text encoder and a U-Net, trained from nothing."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from training import autoencoder, captions, corpus, loop, noise, scenes

TOKENS = 16
VOCABULARY = 1300
WIDTH = 128
UNET_CONFIG = {
    "sample_size": 16,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (64, 128, 160),
    "layers_per_block": 1,
    "cross_attention_dim": WIDTH,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
}
# The second stage goes on from the first one's average, its rate up and down once more (SGDR, Loshchilov and Hutter 2017).
BATCH = 64
PLANS = {
    "first": loop.TrainingPlan(steps=14000, batch=BATCH, learning_rate=1e-3, seed=1, warmup=300, ema_decay=0.9995),
    "second": loop.TrainingPlan(steps=9000, batch=BATCH, learning_rate=8e-4, seed=16, warmup=300, ema_decay=0.9995),
}
SCENES, SCENE_SHARE = 4000, 0.15
MIRRORED_SHARE = 0.3  # of the pictures that are no signs
START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """Latents of all pictures and of their mirror images (2, N, 4, 16, 16), and what the N may be called.

    `chances` say how often each is drawn, `mirror_chances` how often it is mirrored then (N).
    """

    latents: torch.Tensor
    wordings: list[captions.Wording]
    chances: torch.Tensor
    mirror_chances: torch.Tensor


def gallery(concepts: list[corpus.Concept], vae: AutoencoderKL, scene_count: int) -> Gallery:
    """Every concept in both styles, and scenes."""
    emoji = [(style, concept) for concept in concepts for style in corpus.STYLES.values()]
    rng, named = random.Random(PLANS["first"].seed), scenes.named(concepts)
    drawn = [scenes.draw(named, rng) for _ in range(scene_count)]
    images = [concept.image(style) for style, concept in emoji] + [scene.composite for scene in drawn]
    shares = [(1 - SCENE_SHARE) / len(emoji)] * len(emoji) + [SCENE_SHARE / scene_count] * scene_count
    mirrored = [0.0 if concept.is_sign else MIRRORED_SHARE for _, concept in emoji] + [0.5] * scene_count
    return Gallery(
        latents=autoencoder.encode_mirrored(vae, images),
        wordings=[captions.of_concept(concept, style) for style, concept in emoji] + [captions.of_scene(s.words) for s in drawn],
        chances=torch.tensor(shares),
        mirror_chances=torch.tensor(mirrored),
    )


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


def kept_tokenizer(folder: Path, texts: list[str]) -> CLIPTokenizer:
    """The one that a call before has left in the folder, or else one of `texts`: built twice, a few ids change places."""
    if not folder.exists():
        build_tokenizer(texts).save_pretrained(folder.with_suffix(".tmp"))
        folder.with_suffix(".tmp").replace(folder)
    return CLIPTokenizer.from_pretrained(folder)


def build(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, UNet2DConditionModel]:
    """Untrained text encoder and U-Net."""
    torch.manual_seed(PLANS["first"].seed)
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


def token_tables(tokenizer: CLIPTokenizer, wordings: list[captions.Wording]) -> list[torch.Tensor]:
    """The ids (names, 16) of each picture's prompts."""
    return [token_ids(tokenizer, list(wording.texts)) for wording in wordings]


def train(
    npm_folder: Path, vae: AutoencoderKL, workbench: loop.Workbench
) -> tuple[CLIPTokenizer, CLIPTextModel, UNet2DConditionModel]:
    """Train text encoder and U-Net together on epsilon prediction, with all pictures from the first step to the last."""
    concepts, _ = corpus.split(corpus.load_concepts(npm_folder))
    pictures = gallery(workbench.few(concepts), vae, workbench.bounded(SCENES))
    tokenizer = kept_tokenizer(workbench.folder / "tokenizer", [text for w in pictures.wordings for text in w.texts])
    text_encoder, unet = build(tokenizer)
    modules = {"text_encoder": text_encoder.to(loop.device()), "unet": unet.to(loop.device())}
    loss = _loss(tokenizer, text_encoder, unet, pictures)
    for stage, plan in PLANS.items():
        loop.train(modules, loss, plan, workbench.stage(stage), figures=lambda: loop.mean_loss(loss))
    return tokenizer, text_encoder.eval(), unet.eval()


def _loss(
    tokenizer: CLIPTokenizer, text_encoder: CLIPTextModel, unet: UNet2DConditionModel, pictures: Gallery
) -> loop.LossFunction:
    tables, empty = token_tables(tokenizer, pictures.wordings), token_ids(tokenizer, [""])[0]

    def loss_of_batch(generator: torch.Generator) -> torch.Tensor:
        chosen = torch.multinomial(pictures.chances, BATCH, replacement=True, generator=generator)
        side = (torch.rand(BATCH, generator=generator) < pictures.mirror_chances[chosen]).long()
        words = [tables[i][captions.drawn(pictures.wordings[i], generator)] for i in chosen.tolist()]
        dropped = torch.rand(BATCH, generator=generator) < captions.DROPOUT
        prompt = torch.where(dropped[:, None], empty, torch.stack(words)).to(loop.device())
        times = noise.spread_times(BATCH, generator)
        z = pictures.latents[side, chosen]
        epsilon = torch.randn(z.shape, generator=generator)
        x, epsilon = noise.noised(z, epsilon, times).to(loop.device()), epsilon.to(loop.device())
        with loop.reduced():
            states = text_encoder(prompt).last_hidden_state
            predicted = unet(x, times.to(loop.device()), states).sample.float()
        return ((predicted - epsilon) ** 2 * noise.weight(times).to(loop.device())).mean()

    return loss_of_batch
