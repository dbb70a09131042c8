"""The commands `editr1 editor probe|list`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from editr1.cli.completion import editors
from editr1.errors import UserError
from editr1.terminal import wrap

INDENT = 4 * " "


def probe(
    path: Annotated[
        str, typer.Argument(help="Diffusers pipeline: folder, hub name, or toy:NAME.", autocompletion=editors)
    ],
    pixels: Annotated[int, typer.Option(min=1, help="Area of its edits in pixels.")] = 256 * 256,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Run a pipeline a few times, derive its family record, and check that training sees what inference sees."""
    import torch

    from editr1.devices import pick_device
    from editr1.editors.open import find_family, load_pipeline
    from editr1.editors.probe import probe as run_probe
    from editr1.editors.probe import record_source
    from editr1.toy.assets import locate

    where = locate(path)
    record = find_family(where)
    device = pick_device("auto")
    pipe = load_pipeline(where, torch.bfloat16 if device.type == "cuda" else torch.float32, device)
    result = run_probe(pipe, record=record, pixels=pixels)
    report: dict[str, Any] = {
        "pipeline": result.family.pipeline,
        "known": record is not None,
        "record": record_source(result.family),
        "disagreements": result.disagreements,
        "calls_a_step": result.calls[0],
        "rows_an_edit": result.calls[1],
        "guided": result.guided and {"calls_a_step": result.guided[0], "rows_an_edit": result.guided[1]},
        "replayed_calls": len(result.differences),
        "largest_difference": max(result.differences, default=None),
        "error": result.error,
    }
    typer.echo(json.dumps(report, indent=1) if as_json else _text(report))
    if result.error is not None:
        raise UserError(f"{path} cannot be trained, the replay differs from what the pipeline computes: {result.error}")


def list_editors(as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False) -> None:
    """List the editors that editr1 knows: family, pipeline class, source images; and those it cannot train, and why."""
    from editr1.editors.catalogue import catalogue

    rows = catalogue()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    typer.echo("\n".join(_catalogue(rows)))


def _catalogue(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The editors as lines for people, names whole; reasons are wrapped to the width of the terminal."""
    yield f"{'family':20} {'pipeline':28} source images"
    for row in (row for row in rows if row["supported"]):
        sources = "any number" if row["source_images"] is None else row["source_images"]
        yield f"{row['family']:20} {row['pipeline']:28} {sources}"
    yield from ("", "Cannot be trained:")
    for row in (row for row in rows if not row["supported"]):
        yield f"  {row['pipeline']}"
        yield from wrap(row["reason"], INDENT, INDENT)


def _text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [report["record"], ""]
    guided = report["guided"]
    lines.append(f"Denoiser calls per step: {report['calls_a_step']}, rows per edit: {report['rows_an_edit']}.")
    if guided:
        lines.append(
            f"Under guidance: {guided['calls_a_step']} calls per step, {guided['rows_an_edit']} rows per edit; the "
            "first call, or the rows named in `conditional`, see the instruction."
        )
    if report["known"]:
        verdict = "; ".join(report["disagreements"]) or "it agrees with editr1's own record of the denoiser's call"
        lines.append(f"This pipeline is known: {verdict}.")
    if report["error"] is None:
        lines.append(
            f"Parity: {report['replayed_calls']} denoiser calls replayed, largest difference "
            f"{report['largest_difference']:g}."
        )
    return "\n".join(lines)
