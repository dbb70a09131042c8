"""The command `editr1 plan`."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from editr1.cli.settings import AsJson, ConfigName, Overrides

Judge = Literal["elsewhere", "beside", "none"]


def plan(
    config: ConfigName,
    gpus: Annotated[str, typer.Option(help="GPUs of a node, as 8xH100-80G; a wrong kind lists those known.")],
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")] = 1,
    judge: Annotated[
        Judge | None,
        typer.Option(
            help="Place of the judge: on GPUs of the same kind elsewhere (as for endpoints), beside each trainer "
            "(as for a path), or none."
        ),
    ] = None,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Judges elsewhere; as many as are needed if left out.")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Price of a GPU for an hour.")] = None,
    efficiency: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the GPU's dense bfloat16 speed that is reached.")
    ] = 0.4,
    as_json: AsJson = False,
) -> None:
    """Plan a run without weights or a GPU: memory, time and cost of a step, and the settings that make it fit.

    The trainer's own step is run on tensors without memory, with a few of the denoiser's blocks, for the editors of the
    presets and for any pipeline folder. Settings that are not known, such as memory.compile, are refused. All figures
    are planned; none is measured.
    """
    from editr1.config.loading import load_config
    from editr1.planning.command import plan_run
    from editr1.planning.gpus import parse_gpus

    facts, lines = plan_run(
        lambda more: load_config(config, [*(overrides or []), *more]),
        parse_gpus(gpus, nodes),
        judge,
        replicas=replicas,
        price=price,
        efficiency=efficiency,
    )
    typer.echo(json.dumps(facts, indent=1) if as_json else "\n".join(lines))
