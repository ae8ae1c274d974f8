"""Commands: emoji packages and photographs -> the model, the adapters, the evaluation inputs and the sheets."""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from quadbench import zoo
from quadbench.errors import QuadbenchError, UserError
from training import (
    adapters,
    autoencoder,
    corpus,
    export,
    image_to_image,
    inputs,
    loop,
    removal,
    sheets,
    stickers,
    text_to_image,
)

PLANS = {
    "vae": tuple(autoencoder.PLANS.values()),
    "base": tuple(text_to_image.PLANS.values()),
    **{task: (plan,) for task, plan in adapters.PLANS.items()},
}
COMMANDS = (*PLANS, "inputs", "sheet")
DESCRIPTION = """\
Train the built-in model again from nothing, on a CUDA device if there is one. Commands, in the order of `all`:

{plans}
  inputs           12 held-out inputs per task
  sheet            pictures of docs/measured/archive/built-in-model.md, and PSNR of each task

Each goes on from its checkpoint in --work; `all` leaves out what is done there. The same page has the minutes measured.

Data: the npm packages emoji-datasource-twitter 16.0.0, emoji-datasource-google 16.0.0 and emojilib 4.0.2, unpacked as
DIR/twitter/package, DIR/google/package and DIR/emojilib/package, and the photographs of the Debian package
lomiri-wallpapers-16.04.
""".format(
    plans="\n".join(
        f"  {name:16} {' + '.join(str(plan.steps) for plan in plans)} steps of {plans[0].batch}" for name, plans in PLANS.items()
    )
)


@dataclass(frozen=True, kw_only=True)
class Places:
    """The places of everything: data and photographs, the model with its adapters and inputs, the sheets."""

    data: Path
    photos: Path
    out: Path
    docs: Path

    @property
    def model(self) -> Path:
        return self.out / "emoji-ldm"


def main() -> None:
    """Run one command or all of them."""
    parser = argparse.ArgumentParser(
        prog="python -m training", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=(*COMMANDS, "all"))
    parser.add_argument("--data", type=Path, required=True, help="folder with the npm packages")
    parser.add_argument("--photos", type=Path, required=True, help="folder with the photographs")
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and logs")
    parser.add_argument("--out", type=Path, help="folder for the model; this package by default")
    parser.add_argument("--docs", type=Path, help="folder for the sheets; docs/img by default")
    parser.add_argument("--minutes", type=_minutes, default=math.inf, help="stop each command's training after this long")
    parser.add_argument("--preview", action="store_true", help="export what there is when --minutes are over")
    parser.add_argument("--most", type=_count, help="no more steps and pictures than this, to try out whether everything runs")
    parser.add_argument("--threads", type=_count, default=2)
    arguments = parser.parse_args()
    if arguments.most and not (arguments.out and arguments.docs):
        parser.error("--most makes a model that only shows that everything runs; give --out and --docs, so that it replaces none")
    torch.set_num_threads(arguments.threads)
    out, docs = arguments.out or zoo.FOLDER, arguments.docs or Path("docs/img")
    places = Places(data=arguments.data, photos=arguments.photos, out=out, docs=docs)
    work = arguments.work / f"most-{arguments.most}" if arguments.most else arguments.work
    for command in COMMANDS if arguments.command == "all" else (arguments.command,):
        done = work / command / "done"
        if arguments.command == "all" and done.exists():
            continue
        workbench = loop.Workbench(
            folder=work / command, minutes=arguments.minutes, is_preview=arguments.preview, most=arguments.most
        )
        try:
            check(command, places, work)
            run(command, places, workbench)
        except QuadbenchError as error:
            sys.exit(str(error))
        if not arguments.preview:
            done.parent.mkdir(parents=True, exist_ok=True)
            done.touch()


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, not {text}")
    return count


def _minutes(text: str) -> float:
    minutes = float(text)
    if not minutes >= 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, not {text}")
    return minutes


def check(command: str, at: Places, work: Path) -> None:
    """Refuse a command that lacks what it starts from.

    Raises:
        UserError: data, photographs, the autoencoder or the model are not where they are looked for.
    """
    needed = {"the npm packages": at.data / "google" / "package" / "emoji.json"}
    if command == "sheet":
        needed = {"the model": at.model / "model_index.json"}
    elif command == "vae":
        needed |= {f"the photograph '{name}'": at.photos / f"{name}.jpg" for name in corpus.PHOTO_CREDITS}
    elif command == "base":
        needed["the autoencoder"] = work / "vae" / "model" / "config.json"
    elif command != "inputs":
        needed["the model"] = at.model / "model_index.json"
    for name, path in needed.items():
        if not path.is_file():
            raise UserError(
                f"{name}: there is no file '{path}'", hint="--help says where everything comes from, and in which order"
            )


def run(command: str, at: Places, workbench: loop.Workbench) -> None:
    """One command."""
    match command:
        case "vae":
            autoencoder.train(at.data, at.photos, workbench).save_pretrained(workbench.folder / "model")
        case "base":
            vae = AutoencoderKL.from_pretrained(workbench.folder.with_name("vae") / "model").eval().to(loop.device())
            tokenizer, text_encoder, unet = text_to_image.train(at.data, vae, workbench)
            export.save(adapters.FrozenBase(tokenizer=tokenizer, text_encoder=text_encoder, vae=vae, unet=unet), at.model)
        case "inputs":
            inputs.write_all(at.data, at.out / "inputs")
        case "sheet":
            print(json.dumps(sheets.write_all(at.out, at.docs), indent=2))
        case _:
            train_adapter(command, at, workbench)


def train_adapter(task: str, at: Places, workbench: loop.Workbench) -> None:
    """One adapter for the exported model."""
    base = export.load(at.model)
    match task:
        case removal.TASK:
            model = removal.train(at.data, base, workbench)
        case stickers.TASK:
            model = stickers.train(at.data, base, workbench)
        case _:
            model = image_to_image.train(task, at.data, base, workbench)
    adapters.save(model, at.out / "adapters" / task)


if __name__ == "__main__":
    main()
