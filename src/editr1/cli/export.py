"""The commands `editr1 export` and `editr1 edit`. They import what they need on call, so that --help is quick."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated

import typer

from editr1.cli.completion import editors
from editr1.errors import UserError


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run; RUN@best for its best checkpoint.")],
    to: Annotated[Path, typer.Option(help="Folder for the weights; new or empty.")],
    merge: Annotated[
        bool, typer.Option("--merge", help="Write a whole pipeline with the trained weights in it.")
    ] = False,
    ema: Annotated[bool, typer.Option("--ema/--no-ema", help="Averaged weights, or the last ones.")] = True,
    layout: Annotated[str, typer.Option("--format", help="Format: diffusers, peft or comfyui.")] = "diffusers",
    step: Annotated[int | None, typer.Option(min=1, help="Step of the checkpoint; the newest by default.")] = None,
) -> None:
    """Write trained weights for diffusers, PEFT or ComfyUI, with a model card; each file is checked by loading it."""
    from editr1.export.export import export_run

    typer.echo(export_run(run, to, merge=merge, ema=ema, layout=layout, step=step))


def edit(
    image: Annotated[Path, typer.Argument(help="Picture to edit.")],
    instruction: Annotated[str, typer.Argument(help="Instruction in words.")],
    editor: Annotated[
        str,
        typer.Option(help="Diffusers pipeline: folder, hub name, toy:NAME, or a run's YAML.", autocompletion=editors),
    ],
    lora: Annotated[
        Path | None,
        typer.Option(help="LoRA (diffusers, PEFT or ComfyUI; file or folder), checkpoint, run or RUN@best."),
    ] = None,
    lora_scale: Annotated[float, typer.Option(help="Factor on what the LoRA adds; docs/evaluation.md.")] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Picture to write; <image>.edited.png by default.")] = None,
    steps: Annotated[int, typer.Option(min=2, help="Denoiser steps of the edit.")] = 28,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise; each seed gives another edit.")] = 0,
    guidance: Annotated[
        float | None, typer.Option(min=0, help="Guidance scale; the pipeline's own default if left out.")
    ] = None,
    pixels: Annotated[int | None, typer.Option(min=1, help="Area of the edit; the editor's own by default.")] = None,
) -> None:
    """Make one edit with the stock pipeline, with or without a LoRA."""
    to = out or Path(f"{image.stem}.edited.png")
    kind = _kind(to)
    if to.resolve() == image.resolve():
        raise UserError(f"--out {to} is the source itself; give another name")
    from editr1.data.pictures import read_picture

    source = read_picture(image, f"cannot read the picture {image}")
    from editr1.data.samples import EditSample
    from editr1.editors.open import open_named_editor
    from editr1.files import write_file
    from editr1.training.checkpoint import trained_weights

    weights = lora and trained_weights(lora)
    loaded = open_named_editor(editor, weights, lora_scale=lora_scale, guidance=guidance, pixels=pixels)
    sample = EditSample(image.name, source, instruction)
    edits = loaded.rollout(sample, 1, steps=steps, seed=seed, scheduler="euler").images
    picture = io.BytesIO()
    edits[0].save(picture, kind)
    write_file(to, picture.getvalue())
    typer.echo(to)


def _kind(path: Path) -> str:
    """Pillow's name of the format that the file's name ends with."""
    from PIL import Image as Images

    kind = Images.registered_extensions().get(path.suffix.lower())
    if kind not in Images.SAVE:
        raise UserError(f"--out {path}: no picture format is called {path.suffix!r}; use .png")
    return kind
