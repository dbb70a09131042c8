"""Our reading of judges' answers against the official scripts': `python scripts/official_readers.py IMGEDIT STEP1X`.

IMGEDIT is a clone of PKU-YuanGroup/ImgEdit, STEP1X one of stepfun-ai/Step1X-Edit. Random answers go through both
readers; differences are counted, and the first ones shown. With `--imgedit OUT`, `--uge OUT` and `--gedit OUT`, folders
of finished evals, the official scripts compute their scores from our files, and these are compared with ours. Exit code
1 if anything differs. GEdit's scripts need pandas and regex.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from editr1.evaluation.benchmarks.gedit import TYPES, official_scores
from editr1.evaluation.benchmarks.imgedit import official_numbers

NAMES = ("Prompt Compliance", "Visual", "**A**", "好", "")
ENDS = (": 4", ": 4.5", "：3", ":2", ": 6 ", ": ²", ": ", " 3", ": 1: 2", ":  3", ": ٣", "\x0b", "\u2028", ": 12")
PIECES: tuple[str, ...] = (
    '{"score": ',
    "[",
    "]",
    "}",
    "{",
    "6",
    "8.5",
    ", ",
    "，",
    "||V^=^V||",
    '"score"',
    ":",
    "\n",
    "11",
    "null",
    "-1",
)
PIECES += ("²", '"reasoning": "ok"', "score", "reasoning", '"', "fine", "true", " ")


def load(path: Path) -> Any:
    """A module from a file outside any package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imgedit_answers(rng: random.Random) -> Iterator[str]:
    """Lines that look like scores, more or less."""
    for _ in range(200_000):
        yield "\n".join(rng.choice(NAMES) + rng.choice(ENDS) for _ in range(rng.randint(0, 6)))


def gedit_answers(rng: random.Random) -> Iterator[str]:
    """Pieces of JSON in any order, and all answers that are right."""
    for _ in range(300_000):
        yield "".join(rng.choice(PIECES) for _ in range(rng.randint(1, 9)))
    for a in range(11):
        for b in range(11):
            yield from (json.dumps({"score": [a, b], "reasoning": "x"}), f"[{a}, {b}]", f"[{a},{b}]", str(a))
            yield from (
                f"{{score: {a}, reasoning: ok}}",
                f'{{"score": {a}}}',
                f'```json\n{{"score": [{a}, {b}],\n}}\n```',
            )
            yield f'Sure.\n{{"score": [{a}, {b}],\n "reasoning": "a \'b\' c"}}'


def readers(name: str, answers: Iterator[str], ours: Callable[[str], Any], theirs: Callable[[str], Any]) -> int:
    """How many answers are read differently; those at which the official reader fails are left out by `theirs`."""
    seen = read = wrong = 0
    for text in answers:
        want = theirs(text)
        if want is StopIteration:
            continue
        got = ours(text)
        seen, read, wrong = seen + 1, read + (want is not None), wrong + (got != want)
        if got != want and wrong < 10:
            print(f"{name}: {text!r}: official {want}, ours {got}")
    print(f"{name}: {seen} answers, {read} of them readable, {wrong} read differently")
    return wrong


def imgedit_theirs(official: Any) -> Callable[[str], Any]:
    """The item's score; StopIteration where the official script ends with an error."""

    def read(text: str) -> Any:
        try:
            return official.extract_scores_and_average(text)
        except ValueError:
            return StopIteration

    return read


def imgedit_ours(text: str) -> float | None:
    """The item's score."""
    numbers = official_numbers(text)
    return round(sum(numbers) / len(numbers), 2) if numbers else None


def gedit_theirs(official: Any) -> Callable[[str], Any]:
    """The least score; None where the official script tries again."""

    def read(text: str) -> Any:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = official.mllm_output_to_dict(text)
            least = min(found["score"])
            math.sqrt(least)
        except Exception:  # noqa: BLE001 (the official script tries again after any)
            return None
        return least

    return read


def gedit_ours(text: str) -> float | None:
    """The least score."""
    return min(official_scores(text), default=None)


def imgedit_files(folder: Path, out: Path) -> int:
    """Scores of items and types by the official scripts, against the files in `out`."""
    basic = folder / "Benchmark/Basic"
    first, second = load(basic / "step1_get_avgscore.py"), load(basic / "step2_typescore.py")
    meta = json.loads((basic / "basic_edit.json").read_text(encoding="utf-8"))
    scores = first.compute_averages(json.loads((out / "result.json").read_text(encoding="utf-8")))
    types = second.compute_edit_type_averages(scores, meta)
    wrong = scores != json.loads((out / "average_score.json").read_text(encoding="utf-8"))
    wrong += types != json.loads((out / "typescore.json").read_text(encoding="utf-8"))
    print(f"{out}: average_score.json and typescore.json {'differ' if wrong else 'equal'} ({len(scores)} items)")
    return wrong


def uge_files(folder: Path, out: Path) -> int:
    """The average by the official script of the UGE suite, against results.json in `out`."""
    official = load(folder / "Benchmark/UGE/get_average_score.py")
    want = official.compute_final_average(json.loads((out / "result.json").read_text(encoding="utf-8")))
    (overall,) = json.loads((out / "results.json").read_text(encoding="utf-8"))["tables"]["all"]
    got = overall["means"]["score"]
    print(f"{out}: official average {want}, ours {got} ({overall['items'] - overall['dropped']} items)")
    return int(want != (None if got is None else round(got, 2)))


def gedit_files(folder: Path, out: Path) -> int:
    """Means by the official statistics, against results.json in `out`."""
    sys.modules["megfile"] = megfile = ModuleType("megfile")  # opens files of clouds too; ours are here
    megfile.smart_open = open  # type: ignore[attr-defined]
    official = load(folder / "GEdit-Bench/calculate_statistics.py")
    tables = json.loads((out / "results.json").read_text(encoding="utf-8"))["tables"]
    (csv,) = out.glob("*/eval_results_new")
    name, wrong = out.resolve().name, 0
    for language in ("en", "cn"):
        with contextlib.redirect_stdout(io.StringIO()):
            found = official.analyze_scores(str(csv), [name], language)
        for place, subset in enumerate(("full", "intersection")):
            lines = {line["name"]: line["means"] for line in tables[f"{language} {subset}"]}
            for metric, means in zip(("SC", "PQ", "O"), found[3 * place : 3 * place + 3], strict=True):
                told = dict(means[name])
                for line, key in [*((task, task) for task in TYPES), ("overall", next(k for k in told if "avg" in k))]:
                    wrong += not math.isclose(lines[line][metric], told[key], abs_tol=1e-9)
    print(f"{out}: {wrong} means of types and overall differ")
    return wrong


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("imgedit_clone", type=Path)
    parser.add_argument("step1x_clone", type=Path)
    parser.add_argument("--imgedit", type=Path, metavar="OUT")
    parser.add_argument("--uge", type=Path, metavar="OUT")
    parser.add_argument("--gedit", type=Path, metavar="OUT")
    given = parser.parse_args()
    step1 = load(given.imgedit_clone / "Benchmark/Basic/step1_get_avgscore.py")
    reader = load(given.step1x_clone / "GEdit-Bench/viescore/utils.py")
    wrong = readers("ImgEdit", imgedit_answers(random.Random(0)), imgedit_ours, imgedit_theirs(step1))
    wrong += readers("GEdit", gedit_answers(random.Random(0)), gedit_ours, gedit_theirs(reader))
    wrong += imgedit_files(given.imgedit_clone, given.imgedit) if given.imgedit else 0
    wrong += uge_files(given.imgedit_clone, given.uge) if given.uge else 0
    wrong += gedit_files(given.step1x_clone, given.gedit) if given.gedit else 0
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
