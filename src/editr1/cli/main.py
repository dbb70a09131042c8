"""The command line. Each command imports what it needs, so that --help is quick.

Exit codes: 0 done, 2 wrong input (one line says what, where, and how to mend it), 130 stopped by Ctrl-C,
SIGTERM or SIGHUP.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from editr1 import __version__
from editr1.cli import ablate as ablate_commands
from editr1.cli import data as data_commands
from editr1.cli import doctor as doctor_commands
from editr1.cli import editor as editor_commands
from editr1.cli import evaluate as eval_commands
from editr1.cli import export as export_commands
from editr1.cli import judge as judge_commands
from editr1.cli import plan as plan_commands
from editr1.cli import settings as settings_commands
from editr1.cli import toy as toy_commands
from editr1.cli import watch as watch_commands
from editr1.cli.completion import toy_editors
from editr1.cli.settings import ConfigName, Overrides
from editr1.config.section import place
from editr1.errors import UserError
from editr1.evaluation.benchmarks.registry import BENCHMARKS
from editr1.terminal import loudness, rank
from editr1.training.process_end import run_and_exit

P = ParamSpec("P")
R = TypeVar("R")
TEXTS = ("instruction", "requirement", "task", "overrides")  # arguments that are words and no names

LAUNCH = ("WORLD_SIZE", "RANK", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
"""What torchrun tells each of its processes."""

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
toy = typer.Typer(no_args_is_help=True, help="The embedded world: scenes, a tiny editor and a tiny judge.")
editor = typer.Typer(no_args_is_help=True, help="List the editors, and probe any diffusers pipeline.")
judge = typer.Typer(no_args_is_help=True, help="Score edits, serve a judge, measure its agreement with people.")
data = typer.Typer(no_args_is_help=True, help="Check, show and make datasets of your own pictures.")
config_group = typer.Typer(no_args_is_help=True, help="Show the settings of a run.")
evaluation = typer.Typer(no_args_is_help=True, help="Run a benchmark, and compare results.")
app.add_typer(toy, name="toy")
app.add_typer(editor, name="editor")
app.add_typer(judge, name="judge")
app.add_typer(data, name="data")
app.add_typer(evaluation, name="eval")
app.add_typer(config_group, name="config")


def main() -> None:
    """Entry point of the `editr1` command; `python -m editr1` has the same name in help and completion."""
    run = functools.partial(app, prog_name="editr1")
    if not _is_launched_rightly():
        sys.exit(2)
    if rank():
        run_and_exit(run)
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.encoding == "utf-8":
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are bytes
    try:
        run()
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        typer.echo(f"editr1: {error}; make room, and run the same command again", err=True)
        sys.exit(2)


def _is_launched_rightly() -> bool:
    """Whether the environment speaks of one process, or of several as torchrun does; if not, it is told."""
    values = {name: os.environ.get(name, "") for name in LAUNCH}
    if os.environ.get("WORLD_SIZE", "1") == "1" or all(re.fullmatch("[0-9]{1,9}", value) for value in values.values()):
        return True
    words = ", ".join(f"{name}={value[:40]!r}" if value else f"no {name}" for name, value in values.items())
    remedy = "start several processes with torchrun, or unset WORLD_SIZE"
    typer.echo(f"editr1: the environment says {words}; {remedy}", err=True)
    return False


def _reported(command: Callable[P, R]) -> Callable[P, R]:
    """Follow "~" in paths, and turn bad input and interruption into a line and an exit code."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **{name: _followed(name, value) for name, value in kwargs.items()})
        except UserError as error:
            _report(error)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            if os.environ.get("RANK", "0") == "0":
                typer.echo("editr1: stopped", err=True)
            raise typer.Exit(130) from error
        except Exception as error:
            if _record(error):
                raise
            raise typer.Exit(1) from error  # another rank shows its traceback

    return run


def _followed(name: str, value: Any) -> Any:
    """An argument with its "~" followed: no shell does so behind the "=" of an option.

    Raises:
        UserError: No file can have this name.
    """
    if isinstance(value, list):
        return [_followed(name, one) for one in value]
    if not isinstance(value, str | Path) or name in TEXTS:
        return value
    try:
        return type(value)(place(str(value)))
    except ValueError as error:
        raise UserError(f"{name}: {error}") from error


def _record(error: Exception) -> bool:
    """Tell the other ranks of torchrun, if there are any, why this one ends; whether nobody has told it yet."""
    if not rank():
        return True
    from editr1.training.distributed import first_to_fail

    return first_to_fail(error)


def _report(error: UserError) -> None:
    """Tell what is wrong; of several ranks that know it, one does."""
    if _record(error):
        for line in str(error).splitlines():  # a check tells all that is wrong, one line each
            typer.echo(f"editr1: {rank()}{line}", err=True)


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"editr1 {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Tell warnings and the result alone.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Tell all that libraries log too.")] = False,
) -> None:
    """Online reinforcement learning for instruction-based image editors."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose: give one of them")
    level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    context.with_resource(loudness(level))


@app.command()
@_reported
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run; a stopped run goes on.")] = Path("demo"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random draw.")] = 0,
    minutes: Annotated[float | None, typer.Option(min=0, help="Minutes of training at most.")] = None,
    editor: Annotated[
        str, typer.Option(help="Toy editor: qwen-image-edit or flux-kontext.", autocompletion=toy_editors)
    ] = "qwen-image-edit",
) -> None:
    """Train the embedded editor against the embedded judge, in minutes on a CPU, and report before and after."""
    from editr1.cli.demo import run_demo
    from editr1.training.distributed import open_world

    with open_world() as world:
        run_demo(out=out, seed=seed, minutes=minutes, editor=editor, world=world)


@app.command()
@_reported
def train(
    config: ConfigName,
    overrides: Overrides = None,
) -> None:
    """Train an editor, and measure it on held-out items if `evaluation` is set. The same command resumes a run.

    Data that changed since the run began is refused, unless you add data.changed=true.
    """
    from editr1.config.loading import load_config

    settings = load_config(config, overrides or [])
    from editr1.cli.check import checked
    from editr1.files import locked
    from editr1.training.distributed import open_world
    from editr1.training.run_files import LOCK

    with (
        open_world(settings.parallel.timeout) as world,
        checked(settings) if world.is_main else nullcontext() as record,
        locked(settings.out / LOCK, world.is_main),
    ):
        if record is not None:
            record.begin()
        world.meet("the end of the checks")
        from editr1.cli.measured import train_config

        folder = train_config(settings, world, None if record is None else record.dataset)
        if world.is_main:
            typer.echo(folder)


@app.command()
@_reported
def check(
    config: ConfigName,
    overrides: Overrides = None,
) -> None:
    """Check all that a run needs before it costs: folder, every picture, editor, device, memory, judge, rewards."""
    from editr1.config.loading import load_config

    settings = load_config(config, overrides or [])
    from editr1.cli.check import run_check

    typer.echo(run_check(settings))


@app.command()
@_reported
def report(run: Annotated[Path, typer.Argument(help="Folder of a run.")]) -> None:
    """Write a self-contained HTML report of a run."""
    from editr1.report.run import write_report

    typer.echo(write_report(run))


app.command()(_reported(watch_commands.watch))
app.command()(_reported(doctor_commands.doctor))
app.command()(_reported(export_commands.export))
app.command()(_reported(export_commands.edit))
app.command()(_reported(plan_commands.plan))
app.command()(_reported(ablate_commands.ablate))
app.command("presets")(_reported(settings_commands.list_presets))
config_group.command()(_reported(settings_commands.show))
data.command()(_reported(data_commands.check))
data.command()(_reported(data_commands.preview))
data.command()(_reported(data_commands.build))
data.command()(_reported(data_commands.suggest))
data.command()(_reported(data_commands.convert))
editor.command()(_reported(editor_commands.probe))
editor.command("list")(_reported(editor_commands.list_editors))
judge.command()(_reported(judge_commands.score))
judge.command()(_reported(judge_commands.serve))
judge.command()(_reported(judge_commands.agree))
judge.command()(_reported(judge_commands.arena))
for name, entry in BENCHMARKS.items():
    evaluation.command(name, help=entry.about)(_reported(eval_commands.benchmark))
evaluation.command("toy")(_reported(eval_commands.toy))
evaluation.command("data")(_reported(eval_commands.data))
evaluation.command()(_reported(eval_commands.compare))
toy.command()(_reported(toy_commands.sample))
toy.command()(_reported(toy_commands.build))
toy.command()(_reported(toy_commands.verify))
