"""The command `quality`: score the generated images of a stored run or of a folder against reference images."""

from functools import partial
from pathlib import Path

from quadbench.cli.console import RunConsole, print_json, print_text, print_text_table, stdout_console
from quadbench.cli.options import Options, Subparsers, add_command, split_list
from quadbench.errors import UserError, requires_extra
from quadbench.report.scores import emulated_tables, score_notes, score_tables


def add(commands: Subparsers) -> None:
    parser = add_command(commands, "quality", run)
    parser.add_argument("run_id", nargs="?", help="the run (default: the latest)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="score the images in this folder instead of a run's")
    parser.add_argument("--reference", type=Path, metavar="DIR", help="the reference images, with the same names")
    parser.add_argument("--source", type=Path, metavar="DIR", help="the input images, with the same names, for CLIP direction")
    parser.add_argument("--metrics", default="", metavar="A,B", help="psnr, ssim, st_lpips, kid, ... (default: all)")
    parser.add_argument(
        "--weights",
        action="append",
        default=[],
        metavar="NAME=PATH@sha256:HEX",
        help="an ONNX file for clip, dino, inception or lpips; can be repeated (docs/quality.md)",
    )
    parser.add_argument("--latents", action="store_true", help="also run the run's graphs here and compare eps and latents")
    parser.add_argument(
        "--emulator", action="store_true", help="also run U-Nets compiled for a Qualcomm HTP, step by step; takes minutes"
    )


def run(options: Options) -> int:
    metrics = split_list(options.metrics) or None
    if options.images or options.reference or options.source:
        if not (options.images and options.reference):
            hint = "quadbench quality --images DIR --reference DIR"
            raise UserError("--images and --reference must be given together; --source needs both", hint=hint)
        if options.run_id or options.latents or options.emulator:
            raise UserError("--images excludes a run, --latents and --emulator", hint="give either a run or --images")
        with requires_extra("quad"):
            from quadbench.quality import score_folders
        scores = score_folders(options.images, options.reference, options.source, metrics=metrics, weights=options.weights)
    else:
        with requires_extra("quad"):
            from quadbench.quality import score_run
        with RunConsole() as observer:
            scores = score_run(
                options.layout,
                options.run_id,
                metrics=metrics,
                weights=options.weights,
                with_latents=options.latents,
                with_emulator=options.emulator,
                notify=partial(observer.stage_step, "quality"),
            )
    if options.json:
        print_json(scores)
        return 0
    for table in (*score_tables(scores), *emulated_tables(scores)):
        print_text_table(stdout_console(), table)
    for note in score_notes(scores):
        print_text(note)
    return 0
