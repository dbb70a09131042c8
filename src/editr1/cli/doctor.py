"""The command `editr1 doctor`: what is wrong with this machine, or with a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from editr1.cli.judge import JUDGE_HELP
from editr1.errors import UserError
from editr1.terminal import wrap


def doctor(
    run: Annotated[Path | None, typer.Argument(help="Folder of a run; without one, this machine.")] = None,
    judge: Annotated[
        list[str] | None, typer.Option("--judge", help=f"A judge to ask, may be repeated: URL?model=NAME, {JUDGE_HELP}")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what is wrong with this machine, or with a run, and what to set. Exit code 1 if something is."""
    if run is not None and judge:
        raise UserError("--judge is asked without a run: leave one of them out")
    report, lines = _run(run) if run is not None else _machine(judge or [])
    typer.echo(json.dumps(report, indent=1) if as_json else "\n".join(lines))
    if not report["healthy"]:
        raise typer.Exit(1)


def _machine(judges: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What is known of this machine, and the same in lines."""
    from editr1.cli.machine import examine_machine

    machine = examine_machine(judges)
    report = {"healthy": not machine.faults, "faults": machine.faults, **machine.facts}
    lines = [line for name, facts in machine.facts.items() for line in _section(name, facts)]
    lines += [line for fault in machine.faults for line in wrap(fault, "WRONG  ", 7 * " ")]
    return report, lines if machine.faults else [*lines, "Nothing is wrong."]


def _section(name: str, facts: Mapping[str, Any]) -> Iterator[str]:
    yield name
    width = max(map(len, facts), default=0)
    for key, value in facts.items():
        words = f"{value.get('name', value.get('path'))}, {_free(value)}" if isinstance(value, dict) else value
        yield from wrap(f"{key:{width}}  {words or 'missing'}", "  ", (width + 4) * " ")


def _free(value: Mapping[str, Any]) -> str:
    whole = f" of {value['memory_gib']:.1f}" if "memory_gib" in value else ""
    return f"{value['free_gib']:.1f}{whole} GiB free"


def _run(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What there is to say about a run, and the same in lines."""
    from editr1.report.doctor.case import case_of
    from editr1.report.doctor.diagnoses import diagnose
    from editr1.report.run_folder import read_run
    from editr1.training.self_check import in_words

    run = read_run(folder)
    findings = diagnose(case_of(run))
    report = {
        "healthy": not any(finding.wrong for finding in findings),
        "run": str(folder),
        "steps": len(run.metrics),
        "of": run.config["steps"],
        "self_check": run.self_check,
        "findings": [finding._asdict() for finding in findings],
    }
    lines = [f"{folder}: {len(run.metrics)} of {run.config['steps']} steps are done"]
    if run.self_check:
        lines += wrap(f"sampled = trained: {in_words(run.self_check)}", "", "  ")
    for finding in findings:
        mark = "WRONG  " if finding.wrong else "note   "
        lines += wrap(f"{finding.name}: {finding.text}", mark, 7 * " ")
    return report, lines if not report["healthy"] else [*lines, "Nothing is wrong."]
