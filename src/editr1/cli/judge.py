"""The commands `editr1 judge score|serve|agree|arena`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from editr1.errors import UserError
from editr1.terminal import announce, open_console, show_table

JUDGE_HELP = 'toy, a model\'s folder or hub name, a YAML file, or "openai:URL?model=NAME"; settings follow a "?".'
JudgeOption = Annotated[str, typer.Option("--judge", help=JUDGE_HELP)]


def score(
    source: Annotated[Path, typer.Argument(help="The source image.")],
    edit: Annotated[Path, typer.Argument(help="The edited image.")],
    instruction: Annotated[str, typer.Argument(help="The instruction of the edit.")],
    requirement: Annotated[str, typer.Option(help="What a good edit must show.")] = "",
    task: Annotated[str, typer.Option(help="Type of the edit, such as add or remove.")] = "edit",
    reference: Annotated[list[Path] | None, typer.Option(help="A further source image; may be repeated.")] = None,
    judge: JudgeOption = "toy",
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Score one edit: print the score, the probability of each digit, the judge's prompt and the time."""
    from editr1.data.pictures import read_picture
    from editr1.data.samples import EditSample
    from editr1.devices import pick_device
    from editr1.judges.base import JudgeRequest
    from editr1.judges.criteria import CriteriaJudge
    from editr1.judges.open import open_judge, parse_judge

    paths = (source, edit, *(reference or ()))
    before, after, *others = (read_picture(path, f"cannot read the picture {path}") for path in paths)
    request = JudgeRequest(EditSample(source.name, before, instruction, requirement, task, tuple(others)), after)
    scorer = open_judge(parse_judge(judge), pick_device("auto"))
    if not isinstance(scorer, CriteriaJudge):
        raise UserError("judge score shows one edit; a ranking judge compares several: choose another method")
    announce(f"Asking {scorer.judge_id}")
    (result,) = scorer.score([request])
    asks = scorer.asks(request)
    shown = [(ask.system, *ask.parts) if ask.system else ask.parts for ask in asks]
    prompts = [[part if isinstance(part, str) else "<image>" for part in parts] for parts in shown]
    report: dict[str, Any] = {
        "score": result.value,
        "reason": result.reason,
        "probabilities": dict(zip(asks[0].choices, result.probs, strict=True)) if result.probs else None,
        "bound": result.bound,
        "text": result.text,
        "criteria": {name: {"score": part.value, "reason": part.reason} for name, part in result.parts.items()},
        "judge": scorer.judge_id,
        "prompt": prompts[:: scorer.samples],
        "tokens": result.tokens,
        "seconds": result.seconds,
    }
    typer.echo(json.dumps(report, indent=1) if as_json else _text(report))
    if result.value is None:
        raise UserError(f"no score: {result.reason}")


def serve(
    model: Annotated[str, typer.Option("--model", help="Folder or hub name of a judge model, or toy.")],
    name: Annotated[str | None, typer.Option(help="Model name for clients; by default the folder's name.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8000,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name by which clients call this server; may be repeated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions per batch.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16; by default bfloat16 on a GPU.")] = "",
) -> None:
    """Serve a judge on this machine through an OpenAI-compatible chat API with logprobs."""
    with web_server("judge serve"):
        from editr1.judges.models.server import serve as run_server
    from editr1.devices import pick_device, pick_dtype
    from editr1.judges.models.local import TransformersModel
    from editr1.toy.assets import locate

    place = pick_device(device)
    if dtype not in (None, "", "float32", "bfloat16"):
        raise UserError(f"--dtype {dtype}: use float32 or bfloat16")
    number_format = pick_dtype(dtype or "auto", place)
    served = TransformersModel(locate(model, toy="judge"), batch_size=batch_size, device=place, dtype=number_format)
    served.name = name or served.name
    run_server(served, host=host, port=port, batch_size=batch_size, names=allow_host or ())


def agree(
    prefs: Annotated[str, typer.Argument(help="Preferences: a JSONL file, a published set on disk, or toy.")],
    judge: JudgeOption = "toy",
    methods: Annotated[
        str, typer.Option(help="all, or method names separated by commas; by default the judge's own method.")
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder of the result; a stopped run is resumed.")] = Path("agreement"),
    rule: Annotated[str | None, typer.Option(help="Tie rule of a published set: official or exact.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Measure how well a judge agrees with people, by each method of reading its score."""
    from editr1.devices import pick_device
    from editr1.evaluation.agreement.agree import agree as measure
    from editr1.evaluation.agreement.layouts import read_pairs
    from editr1.evaluation.agreement.toy_pairs import toy_pairs
    from editr1.evaluation.progress import progress
    from editr1.judges.methods import METHODS
    from editr1.judges.open import open_judge, parse_judge
    from editr1.report.agreement import agreement_table, write_agreement_page

    settings = parse_judge(judge)
    known = [settings.method] if settings.method == "template" else [*METHODS]
    names = known if methods == "all" else methods.split(",") if methods else [settings.method]
    if unknown := [name for name in names if name not in known]:
        raise UserError(f"--methods {unknown[0]}: there are {', '.join(known)}, and all")
    device = pick_device("auto")
    judges = {name: open_judge(settings.model_copy(update={"method": name}), device) for name in names}
    pairs = toy_pairs() if prefs == "toy" else read_pairs(Path(prefs))
    with progress(open_console(stderr=True), "judged", len(pairs) * len(judges)) as done:
        result = measure(pairs, judges, rule=rule, out=out, on_pair=done)
    page = write_agreement_page(result, out)
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        show_table(open_console(), agreement_table(result))
        typer.echo(page)


def arena(
    run_a: Annotated[Path, typer.Argument(help="An evaluated run, or the folder of an evaluation.")],
    run_b: Annotated[Path, typer.Argument(help="Another one of the same items.")],
    out: Annotated[Path, typer.Option(help="File of the preferences; stopped voting is resumed.")] = Path(
        "votes.jsonl"
    ),
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 8100,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the order of pairs and sides.")] = 0,
) -> None:
    """Collect preferences: a local web page shows two edits side by side, and you say which is better."""
    with web_server("judge arena"):
        from editr1.evaluation.arena.server import arena as run_arena

    run_arena(run_a, run_b, out, host=host, port=port, seed=seed)


@contextmanager
def web_server(command: str) -> Iterator[None]:
    """Imports a command's server, or says what it needs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise UserError(f"{command} needs fastapi and uvicorn: pip install 'editr1[serve]'") from error


def _text(report: dict[str, Any]) -> str:
    """The report for people."""
    lines = [f"score        {'none' if report['score'] is None else format(report['score'], '.4f')}"]
    for choice, share in (report["probabilities"] or {}).items():
        lines.append(f"  {choice:>4} {share:7.4f} {'#' * round(40 * share)}")
    lines += [f"  {name}: {part['score']}" for name, part in report["criteria"].items()]
    lines += [f"answer       {report['text']!r}"] if report["text"] else []
    lines += [f"judge        {report['judge']}"]
    lines += [f"prompt       {' '.join(parts)}" for parts in report["prompt"]]
    lines += [f"tokens       {report['tokens']}", f"seconds      {report['seconds']:.3f}"]
    return "\n".join(lines)
