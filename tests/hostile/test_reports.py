"""Damaged folders of runs, benchmarks and judged pairs: a page, or one line that names the place and no page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import editr1.report.agreement
import editr1.report.run
from editr1.errors import UserError
from editr1.evaluation.agreement.agree import agree
from editr1.evaluation.agreement.layouts import read_pairs
from editr1.evaluation.benchmarks.compare import compare, write_comparison
from editr1.judges.base import JudgeRequest, Score
from editr1.report.comparison import compare_tables, write_comparison_report
from editr1.report.doctor.case import case_of
from editr1.report.doctor.diagnoses import diagnose
from editr1.report.run_folder import read_run
from tests.hostile.harness import Case, Judged, command
from tests.hostile.mutations import REMOVED, Place, at, damaged
from tests.report.synthetic import write_demo

RESULTS, METRICS, SESSION, CONFIG = "results.json", "metrics.jsonl", "session.json", "config.yaml"
CHECK = "self_check.json"
BEFORE, AFTER = "evaluation/before/rows.jsonl", "evaluation/after/rows.jsonl"


def write_run(folder: Path) -> Path:
    """A small run that has everything that a report shows."""
    write_demo(run := folder / "run", items=2)
    (run / METRICS).write_text("\n".join((run / METRICS).read_text().splitlines()[:14]) + "\n")
    results = json.loads((run / RESULTS).read_text())
    point = {"step": 5, "oracle": results["oracle"], "judge": results["judge"]}
    by_task = dict([*results["by_task"].items()][:1])
    more = {"curve": [point, {**point, "step": 9}], "guidance": 1.0, "by_task": by_task}
    (run / RESULTS).write_text(json.dumps({**results, **more}))
    session = {"command": "editr1 train", "hardware": "a machine", "commit": {"editr1": "abc"}}
    more = {"versions": {"torch": "1"}, "peak_memory_gib": {"process": 1.0, "gpu": 2.0}}
    (run / SESSION).write_text(json.dumps({**session, **more}))
    check = {
        "replay_error": 0.0,
        "trained": 4,
        "layers": 9,
        "steps": 5,
        "modules": 5,
        "silent": ["a.0.b"],
        "dead_ends": ["a.1.b"],
    }
    (run / CHECK).write_text(json.dumps(check))
    return run


def report(run: Path) -> None:
    """A refusal leaves no page; of what a page shows, the doctor has something to say or nothing."""
    try:
        command("report", run)
    except UserError:
        assert not (run / "report.html").exists()
        raise
    assert (run / "report.html").read_text(encoding="utf-8").endswith("</html>")
    diagnose(case_of(read_run(run)))


def with_text(file: str, content: bytes | None, folder: Path) -> None:
    path = write_run(folder) / file
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    report(folder / "run")


def with_half(file: str, folder: Path) -> None:
    path = write_run(folder) / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    report(folder / "run")


def with_value(file: str, line: int | None, place: Place, value: object, folder: Path) -> None:
    """One value of a file, or of one of its lines, is another, or not there."""
    path = write_run(folder) / file
    lines = [path.read_text()] if line is None else path.read_text().splitlines()
    lines[line or 0] = json.dumps(at(json.loads(lines[line or 0]), place, value))
    path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    report(folder / "run")


def with_picture(pattern: str, content: bytes | None, folder: Path) -> None:
    for file in write_run(folder).glob(pattern):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
    report(folder / "run")


def with_config(old: str, new: str, folder: Path) -> None:
    path = write_run(folder) / CONFIG
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    report(folder / "run")


def without(name: str, folder: Path) -> None:
    shutil.rmtree(write_run(folder) / name)
    report(folder / "run")


def words_of(value: object) -> str:
    return "removed" if value is REMOVED else ascii(value)[:25]


REFUSED: tuple[tuple[str, int | None, Place, Sequence[object]], ...] = (
    (METRICS, 3, ("step",), (REMOVED, None, "3", -1, 1.5, 10**200, [])),
    (METRICS, 3, ("groups_kept",), (REMOVED, None, "x", -1, 1e308)),
    (METRICS, 3, ("dropped",), (REMOVED, None, [], {"x": "y"}, {"x": -1})),
    (METRICS, 3, ("reward_by_task",), (REMOVED, None, 3, {"add": "x"}, {"add": {"a": 1}})),
    (METRICS, 3, ("seconds",), (REMOVED, [], {"train": "x"}, {"train": -1.0})),
    (METRICS, 3, ("reward_mean",), ("x", [], {}, True)),
    (METRICS, 3, ("drift", "sharpness"), (REMOVED, None, "x")),
    (METRICS, 3, ("parts_reasons",), ({"own": []}, {"own": 3}, "x")),
    (METRICS, 3, ("watched",), ({}, "x", {"oracle": "x"})),
    (RESULTS, None, ("judge",), (REMOVED, None, "x", {})),
    (RESULTS, None, ("oracle",), (REMOVED, "x")),
    (RESULTS, None, ("oracle", "ci95"), (REMOVED, None, [], [1], ["x", "y"], [0, 1e308])),
    (RESULTS, None, ("judge", "delta"), (REMOVED, None, "x", 1e308, True)),
    (RESULTS, None, ("items",), (REMOVED, None, -1, "36")),
    (RESULTS, None, ("train_seconds",), (REMOVED, None, "x", -1)),
    (RESULTS, None, ("by_task",), (REMOVED, [], {"add": {}}, {"add": None})),
    (RESULTS, None, ("curve",), ("x", [{}], [{"step": 5}, {"step": 9}])),
    (RESULTS, None, ("after",), (3, "", "nowhere", "a\0b", "x" * 300)),
    (RESULTS, None, ("guidance",), ("x", 1e308)),
    (METRICS, 3, ("ties",), ("x", [], {"add": 1})),
    (METRICS, 3, ("kl",), ("x", [], -1e29)),
    (METRICS, 3, ("reasons",), ("x", 3, ["x", "1 x y", "10000000000000000000000 x y", ""])),
    (METRICS, 3, ("kept_by_task",), ("x", [], {"add": -1}, {"add": 10**9})),
    (METRICS, 3, ("lora_norm",), ("x", 0, -1)),
    (CHECK, None, ("replay_error",), (REMOVED, "x", 1e308)),
    (CHECK, None, ("trained",), (REMOVED, None, -1, "x")),
    (CHECK, None, ("silent",), (None, "x", [3], ["<script>"], ["\u202e"])),
    (SESSION, None, ("commit",), ([], {"a": 1}, "x")),
    (SESSION, None, ("peak_memory_gib",), ({"disk": 1.0}, {"gpu": "x"}, {"gpu": -1.0})),
    (SESSION, None, ("command",), (3, None, "\ud800")),
    (AFTER, 1, ("key",), (REMOVED, None, "another")),
    (AFTER, 1, ("oracle",), (REMOVED, None, {}, {"done": 1.0})),
    (BEFORE, 1, ("image",), (REMOVED, 3, "nowhere.png", "../x.png", "a\0")),
    (BEFORE, 1, ("judge",), (REMOVED, "x", 1e308, -1)),
)
SHOWN: tuple[tuple[str, int | None, Place, Sequence[object]], ...] = (
    (METRICS, 3, ("reward_mean",), (REMOVED, None, 1e308, float("nan"), float("-inf"))),
    (METRICS, 3, ("loss",), (REMOVED, None, "x", [], {}, 1e308, 1e-320, float("nan"))),
    (METRICS, 3, ("drift", "sharpness"), (1e308, float("nan"))),
    (METRICS, 3, ("later",), ("a key of a later version",)),
    (SESSION, None, ("command",), (REMOVED, "<script>", "\u202e")),
    (BEFORE, 1, ("judge",), (None, 0)),
)
CASES = (
    *(
        Case(
            f"{file}: {'.'.join(map(str, place))}, {words_of(value)}",
            partial(with_value, file, line, place, value),
            "either",
        )
        for file, line, place, values in REFUSED
        for value in values
    ),
    *(
        Case(f"{file}: {place[-1]}, {words_of(value)}", partial(with_value, file, line, place, value), "clean")
        for file, line, place, values in SHOWN
        for value in values
    ),
    *(
        Case(f"{file} of {name}", partial(with_text, file, content), "either" if file == METRICS else "one line")
        for file in (RESULTS, SESSION, CHECK, METRICS, AFTER, CONFIG)
        for name, content in {
            "no text": b"\xff\xfe\n",
            "NULs": bytes(100) + b"\n",
            "a list": b"[1, 2]\n",
            "nesting": 100_000 * b"[" + b"\n",
            "an alien object": b'{"a": 1}\n{"b": 2}\n',
        }.items()
    ),
    *(Case(f"half of {file}", partial(with_half, file)) for file in (RESULTS, SESSION, CHECK, AFTER)),
    *(Case(f"no {file}", partial(with_text, file, None), "clean") for file in (RESULTS, SESSION, CHECK, METRICS)),
    *(Case(f"no {file}", partial(with_text, file, None)) for file in (CONFIG, AFTER, BEFORE)),
    *(Case(f"an empty {file}", partial(with_text, file, b"")) for file in (RESULTS, SESSION, CHECK, CONFIG, AFTER)),
    Case("an empty metrics.jsonl", partial(with_text, METRICS, b""), "clean"),
    *(
        Case(f"{name} as {pattern}", partial(with_picture, pattern, content))
        for pattern in ("samples/*.png", "evaluation/after/*_0.png", "evaluation/before/*_source.png")
        for name, content in {"words": b"words", "half a PNG": b"\x89PNG\r\n\x1a\n\0\0", "nothing": b""}.items()
    ),
    Case("no sources", partial(with_picture, "evaluation/before/*_source.png", None)),
    Case("no grids", partial(without, "samples"), "clean"),
    Case("no evaluation", partial(without, "evaluation")),
    *(
        Case(f"a config with {new[:30]!r}", partial(with_config, old, new))
        for old, new in (
            ("algorithm:", "other:"),
            ("name: nft", "name: nowhere"),
            ("beta: 1.0", "beta: [1]"),
            ("rollout:", "rollout: 3\nx:"),
            ("judge:", "judge: []\nx:"),
            ("grad_clip: 1.0", "grad_clip: none"),
            ("seed: 0", "seed: !!python/name:os.system"),
        )
    ),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_report_of_a_damaged_run_is_a_page_or_one_line(case: Case, judged: Judged) -> None:
    judged(case)


def write_results(folder: Path) -> tuple[Path, Path]:
    for name, score in (("a", 3.0), ("b", 4.0)):
        (folder / name).mkdir()
        (folder / name / RESULTS).write_text(json.dumps(result(score)))
        Image.new("RGB", (64, 64), "red").save(folder / name / "edit.png")
    return folder / "a", folder / "b"


def result(score: float) -> dict[str, Any]:
    """A result of ImgEdit-Bench with three types."""
    tasks = ("add", "adjust", "style")
    line = {"items": 1, "dropped": 0, "means": {"score": score}, "careful": None}
    item = {"subsets": ["all"], "instruction": "go", "source": "", "edit": "edit.png", "scores": {"score": score}}
    return {
        "benchmark": "imgedit",
        "metrics": ["score"],
        "best": 5.0,
        "overall": "types",
        "made_with": {"editor": "E", "lora": None, "steps": 28, "judge": "J", "prompts": "p"},
        "tables": {"all": [{"name": name, **line} for name in (*tasks, "overall")]},
        "items": [{"key": task, "task": task, **item} for task in tasks],
    }


def compared(folders: tuple[Path, Path], out: Path) -> None:
    comparison = compare(folders)
    write_comparison(comparison, out)
    write_comparison_report(comparison, out)
    list(compare_tables(comparison))


class Even:
    """Gives every edit the same score."""

    remote = False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return [Score(0.5) for _ in requests]


def write_votes(folder: Path) -> Path:
    for name in "abs":
        Image.new("RGB", (8, 8), {"a": "red", "b": "blue", "s": "green"}[name]).save(folder / f"{name}.png")
    vote = {"source": "s.png", "instruction": "go", "edit_a": "a.png", "edit_b": "b.png", "preference": "a"}
    (folder / "votes.jsonl").write_text(json.dumps(vote) + "\n")
    return folder / "votes.jsonl"


def agreed(votes: Path, out: Path) -> None:
    measured = agree(read_pairs(votes), {"score_logit": Even()}, out=out)
    editr1.report.agreement.write_agreement_page(measured, out)
    editr1.report.agreement.agreement_table(measured)


def sweep(path: Path, line: int | None, act: Callable[[], object]) -> None:
    """Every damage to one place of a file, or of one of its lines, is a page or a readable line."""
    old = path.read_text()
    lines = [old] if line is None else old.splitlines()
    for name, text in damaged(json.loads(lines[line or 0])):
        lines[line or 0] = text
        path.write_text("\n".join(lines) + "\n")
        try:
            act()
        except UserError as error:
            assert str(error).isprintable() and len(str(error)) < 1000, (name, error)
        except Exception as error:
            raise AssertionError(f"{path.name}: {name}") from error
    path.write_text(old)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "line"), [(SESSION, None), (RESULTS, None), (METRICS, 3), (AFTER, 1), (BEFORE, 0)], ids=str
)
def test_no_damage_to_a_run_is_a_traceback(file: str, line: int | None, tmp_path: Path) -> None:
    run = write_run(tmp_path)
    shutil.rmtree(run / "samples")
    sweep(run / file, line, partial(editr1.report.run.write_report, run))


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_no_damage_to_a_result_is_a_traceback_of_a_comparison(which: int, tmp_path: Path) -> None:
    folders = write_results(tmp_path)
    sweep(folders[which] / RESULTS, None, partial(compared, folders, tmp_path / "out"))


@pytest.mark.parametrize("line", [0, 1])
def test_no_damage_to_scores_is_a_traceback_of_agreement(line: int, tmp_path: Path) -> None:
    votes = write_votes(tmp_path)
    agreed(votes, tmp_path / "out")
    sweep(tmp_path / "out" / "scores.jsonl", line, partial(agreed, votes, tmp_path / "out"))
