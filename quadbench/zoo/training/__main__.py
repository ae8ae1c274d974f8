"""Commands: emoji packages and photographs -> the model, the adapters, the evaluation inputs and the sheets in this package."""

import argparse
import json
import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from quadbench import zoo
from quadbench.zoo.training import adapters, autoencoder, export, image_to_image, inputs, removal, sheets, stickers, text_to_image

DESCRIPTION = """\
Train the built-in model again from nothing. Commands, in the order of `all`:

  vae              2000 steps of 16 pictures
  base             text encoder and U-Net, {detail} + {composition} + {things} steps of 64 latents
  restyle          LoRA r=16, {restyle} steps of 64 pairs
  remove-object    LoRA r=24, {remove} + {consistency} steps of 64 scenes
  sketch-to-image  LoRA r=16, {sketch} steps of 32 pairs
  sticker          LoRA r=8, {sticker} steps of 32 latents
  portrait         LoRA r=12, {portrait} steps of 32 pairs
  inputs           12 held-out inputs per task
  sheet            pictures and figures of docs/zoo.md

Each goes on from its checkpoint in --work. `--minutes 0` exports what the checkpoint holds. docs/zoo.md has the minutes measured.

Data: the npm packages emoji-datasource-twitter 16.0.0 and emoji-datasource-google 16.0.0, unpacked as DIR/twitter/package and
DIR/google/package, and the photographs of the Debian package lomiri-wallpapers-16.04.
""".format(
    detail=text_to_image.STEPS["detail"],
    composition=text_to_image.STEPS["composition"],
    things=text_to_image.STEPS["things"],
    restyle=adapters.STEPS["restyle"],
    remove=adapters.STEPS["remove-object"],
    consistency=adapters.STEPS["consistency"],
    sketch=adapters.STEPS["sketch-to-image"],
    sticker=adapters.STEPS["sticker"],
    portrait=adapters.STEPS["portrait"],
)
COMMANDS = ("vae", "base", *zoo.TASKS, "inputs", "sheet")


def main() -> None:
    """Run one command or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m quadbench.zoo.training", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=(*COMMANDS, "all"))
    parser.add_argument("--data", type=Path, required=True, help="folder with twitter/package and google/package")
    parser.add_argument("--photos", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, default=zoo.FOLDER, help="folder for the model; this package by default")
    parser.add_argument("--docs", type=Path, default=Path("docs/img"), help="folder for the sheets")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop each command's training after this long")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    for command in COMMANDS if arguments.command == "all" else (arguments.command,):
        run(command, arguments)


def run(command: str, at: argparse.Namespace) -> None:
    """One command."""
    model_folder = at.out / "emoji-ldm"
    adapter_folder = at.out / "adapters" / command
    match command:
        case "vae":
            autoencoder.train(at.data, at.photos, at.work / "vae", minutes=at.minutes).save_pretrained(at.work / "vae/model")
        case "base":
            vae = AutoencoderKL.from_pretrained(at.work / "vae/model").eval()
            tokenizer, text_encoder, unet = text_to_image.train(at.data, at.photos, vae, at.work / "base", minutes=at.minutes)
            export.save(adapters.Base(tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, unet=unet), model_folder)
        case "restyle" | "sketch-to-image" | "portrait":
            model = image_to_image.train(command, at.data, export.load(model_folder), at.work / command, minutes=at.minutes)
            adapters.save(model, adapter_folder)
        case "sticker":
            model = stickers.train(at.data, export.load(model_folder), at.work / command, minutes=at.minutes)
            adapters.save(model, adapter_folder)
        case "remove-object":
            base = export.load(model_folder)
            model, scores = removal.train(at.data, at.photos, base, at.work / command, minutes=at.minutes)
            adapters.save(model, adapter_folder)
            print(json.dumps({"validation_psnr_db": scores}))
        case "inputs":
            inputs.write_all(at.data, at.photos, at.out / "inputs")
        case "sheet":
            print(json.dumps(sheets.write_all(at.out, at.docs), indent=2))


if __name__ == "__main__":
    main()
