"""Inputs of the built-in task `remove-object` -> recipes/scale-inputs: three of them at 512x512 with masks, for full-size models.

python scripts/enlarge_inputs.py
"""

import argparse
import json
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
SOURCE, TARGET = ROOT / "quadbench/zoo/inputs/remove-object", ROOT / "recipes/scale-inputs"
COUNT, SIZE = 3, (512, 512)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    TARGET.mkdir(exist_ok=True)
    entries = json.loads((SOURCE / "inputs.json").read_text())[:COUNT]
    for index, entry in enumerate(entries):
        entry.pop("truth")  # what is right at 64x64 is not what a full-size model should paint
        for key, name, how in (("image", f"{index}.png", Image.Resampling.BICUBIC), ("mask", f"{index}.mask.png", 0)):
            with Image.open(SOURCE / entry[key]) as image:
                image.resize(SIZE, how).save(TARGET / name, optimize=True)
            entry[key] = name
    (TARGET / "inputs.json").write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
