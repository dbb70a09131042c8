"""The commands `editr1 editor probe|list`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from editr1.errors import UserError


def probe(
    path: Annotated[str, typer.Argument(help="Diffusers pipeline: folder, hub name, or toy:NAME.")],
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
    from rich.console import Console
    from rich.table import Table

    table = Table("family", "pipeline", "sources", "")
    for row in rows:
        sources = "any" if row["source_images"] is None else str(row["source_images"])
        if row["supported"]:
            table.add_row(row["family"], row["pipeline"], sources, "")
        else:
            table.add_row("", row["pipeline"], "", row["reason"])
    Console().print(table)


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
