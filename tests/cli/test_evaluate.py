"""`editr1 eval` as a user types it: both benchmarks with the toy editor and judge, killed and resumed; wrong input."""

from __future__ import annotations

import csv
import errno
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

import pytest
from typer.testing import CliRunner

from editr1.cli import main as cli
from tests.evaluation.benchmarks.folders import gedit_folder, imgedit_folder
from tests.judges.fault_server import FaultServer, Reply, always

pytest.importorskip("pyarrow")
FAST = ("--editor", "toy", "--judge", "toy", "--steps", "3")


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "editr1", "eval", *map(str, arguments)]


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["eval", *map(str, arguments)])
    return result.exit_code, result.stdout, result.stderr


def killed(arguments: list[str], enough: Path, how: int) -> subprocess.Popen[str]:
    """The command, ended by a signal as soon as the file `enough` is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    for _ in range(12000):
        if enough.exists() or process.poll() is not None:
            break
        time.sleep(0.05)
    process.send_signal(how)
    process.wait(timeout=600)
    return process


@contextmanager
def held(edit: Path) -> Iterator[None]:
    """Inside, whoever writes the edit waits for a reader that never comes: no command ends before it is stopped."""
    part = edit.with_name(f".{edit.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(part)
    yield
    part.unlink()


def pictures(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.png"))}


@pytest.fixture(scope="module")
def imgedit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return imgedit_folder(tmp_path_factory.mktemp("imgedit"))


@pytest.fixture(scope="module")
def whole(imgedit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "mine"
    code, shown, error = invoke("imgedit", "--data", imgedit, *FAST, "--out", out)
    assert code == 0, error
    assert "overall" in shown and "9 items" in shown
    assert "Edits: editor toy:qwen-image-edit, steps 3, scheduler euler, guidance" in shown
    return out


def test_imgedit_aggregates_equal_the_official_computation_from_the_raw_answers(imgedit: Path, whole: Path) -> None:
    entries = json.loads((imgedit / "basic_edit.json").read_text())
    raw = json.loads((whole / "result.json").read_text())
    assert raw.keys() == entries.keys() and all((whole / f"{key}.png").is_file() for key in entries)
    averages: dict[str, float] = {}
    types: dict[str, list[float]] = {}
    for key, text in raw.items():
        numbers = [int(m[1]) for line in text.splitlines() if (m := re.fullmatch(r"[^:]*: (\d+)", line.strip()))]
        assert len(numbers) == 3 and all(1 <= number <= 5 for number in numbers)
        averages[key] = round(sum(numbers) / 3, 2)
        types.setdefault(entries[key]["edit_type"], []).append(averages[key])
    means = {name: round(sum(scores) / len(scores), 2) for name, scores in types.items()}
    assert json.loads((whole / "average_score.json").read_text()) == averages
    assert json.loads((whole / "typescore.json").read_text()) == means
    lines = {line["type"]: line for line in csv.DictReader(io.StringIO((whole / "results.csv").read_text()))}
    assert float(lines["overall"]["score"]) == pytest.approx(fmean(fmean(scores) for scores in types.values()))
    told = json.loads((whole / "results.json").read_text())["made_with"]
    assert told["asked"] == "score_logit" and "brief" in told["prompts"] and told["judge"] == "toy:judge"


def test_a_run_that_is_killed_goes_on_by_two_processes_and_ends_as_one_that_is_not(
    imgedit: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mine"
    arguments = command("imgedit", "--data", imgedit, *FAST, "--out", out)
    with held(out / "1003.png"):
        killed(arguments, out / "1002.png", signal.SIGKILL)
    assert len(list(out.glob("1*.png"))) == 3 and not (out / "results.json").exists()
    before = {name: (out / name).stat().st_mtime_ns for name in pictures(out)}
    with held(out / "1008.png"):
        stopped = killed([*arguments, "--processes", "2"], out / "1007.png", signal.SIGINT)
    assert stopped.returncode == 130 and stopped.stderr is not None
    assert "same command goes on" in stopped.stderr.read()
    code, _, error = invoke("imgedit", "--data", imgedit, *FAST, "--out", out)
    assert code == 0, error
    assert pictures(out) == pictures(whole)
    for name in ("result.json", "typescore.json", "results.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    assert all((out / name).stat().st_mtime_ns == moment for name, moment in before.items())


def test_gedit_killed_and_resumed_has_the_official_files_and_tables_that_equal_an_independent_computation(
    tmp_path: Path,
) -> None:
    data, out = gedit_folder(tmp_path / "data"), tmp_path / "mine"
    arguments = command("gedit", "--data", data, *FAST, "--out", out)
    with held(out / "fullset/ps_human/cn/k4.png"):
        killed(arguments, out / "fullset/motion_change/en/k3.png", signal.SIGKILL)
    assert out.is_dir() and not (out / "results.json").exists()
    code, shown, error = invoke("gedit", "--data", data, *FAST, "--out", out)
    assert code == 0, error
    assert "GEdit-Bench, en full" in shown and "GEdit-Bench, cn intersection" in shown
    assert (out / "fullset/ps_human/cn/k4.png").is_file() and (out / "fullset/ps_human/cn/k4_SRCIMG.png").is_file()
    raw: dict[str, dict[str, float]] = {}
    for line in (out / "answers.jsonl").read_text().splitlines()[1:]:
        record = json.loads(line)
        raw.setdefault(record["key"], {})[record["question"]] = min(json.loads(record["text"])["score"])
    combined = out / "gpt4o/eval_results_new/mine_combined_gpt_score.csv"
    for row in csv.DictReader(io.StringIO(combined.read_text())):
        _, _, task, language, name = row["edited_image"].split("/")
        scores = raw[f"{task}/{language}/{name.removesuffix('.png')}"]
        assert float(row["sementics_score"]) == scores["consistency"]
        assert float(row["quality_score"]) == scores["quality"]
    overall = {
        line["subset"]: float(line["O"])
        for line in csv.DictReader(io.StringIO((out / "results.csv").read_text()))
        if line["type"] == "overall"
    }
    for language in ("en", "cn"):
        roots = [math.sqrt(s["consistency"] * s["quality"]) for key, s in raw.items() if f"/{language}/" in key]
        assert len(roots) == 11 and overall[f"{language} full"] == pytest.approx(fmean(roots))
        assert overall[f"{language} intersection"] == pytest.approx(fmean(roots[::2]))


def test_best_of_n_lays_the_best_rewarded_candidate_where_the_edit_belongs(imgedit: Path, tmp_path: Path) -> None:
    arguments = ("imgedit", "--data", imgedit, *FAST, "--limit", "3", "--best-of", "3", "--out", tmp_path)
    assert invoke(*arguments)[0] == 0
    picks = [json.loads(line) for line in (tmp_path / "picks.jsonl").read_text().splitlines()]
    assert len(picks) == 3
    for pick in picks:
        assert pick["rewards"][pick["picked"]] == max(pick["rewards"])
        candidate = tmp_path / f"candidates/{pick['key']}_{pick['picked']}.png"
        assert (tmp_path / f"{pick['key']}.png").read_bytes() == candidate.read_bytes()
    told = json.loads((tmp_path / "results.json").read_text())["made_with"]
    assert told["best_of"] == 3 and told["reward"] == "toy:judge"


class Writer(FaultServer):
    """Writes the official three lines, as they follow from the message; Chinese colons now and then."""

    def complete(self, body: Reply) -> Reply:
        reply = super().complete(body)
        number = len(json.dumps(body["messages"])) % 7
        colon = "：" if number == 6 else ": "
        text = "\n".join(f"{name}{colon}{1 + (number + i) % 5}" for i, name in enumerate(("Follows", "Looks", "Keeps")))
        reply["choices"][0]["message"]["content"] = f"It is fine.\n{text}"
        return reply


def test_a_judge_that_dies_leaves_the_edits_and_the_same_command_asks_only_for_what_is_missing(
    imgedit: Path, whole: Path, tmp_path: Path
) -> None:
    def arguments(server: FaultServer) -> tuple[str | Path, ...]:
        judge = f"openai:{server.url}?model=test&tries=2&timeout=5"
        return ("imgedit", "--data", imgedit, "--editor", "toy", "--steps", "3", "--judge", judge, "--out", tmp_path)

    with FaultServer(always("http_503")) as server:
        code, _, error = invoke(*arguments(server))
    assert code == 2 and "no item has a score; " in error and "503" in error and "Traceback" not in error
    assert {name for name in pictures(whole) if "/" not in name} <= set(pictures(tmp_path))
    with Writer() as server:
        code, _, error = invoke(*arguments(server))
        assert code == 0, error
        asked = server.chats
    result = json.loads((tmp_path / "results.json").read_text())
    assert result["made_with"]["asked"] == "written" and result["made_with"]["prompt_tokens"] > 0
    dropped = [row["key"] for row in result["items"] if row["scores"]["score"] is None]
    unread = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()[1:]]
    assert asked == 9 + 2 * len(dropped)
    assert {record["key"] for record in unread if len(record["unread"]) == 2} == set(dropped)
    with Writer() as server:
        code, shown, _ = invoke(*arguments(server))
        assert code == 0 and server.chats == 0
        assert shown.startswith("imgedit: 9 items, 0 of them to edit (1 each), 0 questions to openai:")


def test_estimate_names_questions_and_price_before_anything_is_made(imgedit: Path, tmp_path: Path) -> None:
    with Writer() as server:
        judge = f"openai:{server.url}?model=test"
        _, shown, _ = invoke(
            *("imgedit", "--data", imgedit, "--editor", "toy", "--steps", "3", "--limit", "2"),
            *("--judge", judge, "--price", "2,8", "--out", tmp_path),
        )
    first = shown.splitlines()[0]
    assert first.startswith("imgedit: 2 items, 2 of them to edit (1 each), 2 questions to openai:")
    assert re.search(r"at most about \$\d+\.\d\d where no answer is asked for twice\.$", first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("--data", "nowhere"), "must be the benchmark's folder"),
        (("--scheduler", "ddim"), "--scheduler ddim: there are"),
        (("--reward", "toy"), "give --best-of N too"),
        (("--price", "cheap"), "--price cheap: give two numbers"),
        (("--ask", "kindly"), "use written or score_logit"),
        (("--lora", "nowhere"), "nowhere: no LoRA there"),
        (("--lora-scale", "2"), "--lora-scale 2 needs a LoRA: add --lora"),
        (("--editor", "toy:other"), "no toy model is called 'other'"),
        (("--judge", "nowhere"), "no folder at nowhere"),
    ],
)
def test_wrong_input_is_one_line(imgedit: Path, tmp_path: Path, change: tuple[str, str], message: str) -> None:
    code, _, error = invoke("imgedit", "--data", imgedit, *FAST, "--out", tmp_path, *change)
    lines = [line for line in error.splitlines() if line.startswith("editr1: ")]
    assert code == 2 and len(lines) == 1 and message in lines[0]
    assert not pictures(tmp_path), "told before any edit is made"


def test_the_toy_models_by_their_long_names_are_the_same_and_asked_the_same_way(imgedit: Path, whole: Path) -> None:
    before = (whole / "answers.jsonl").read_bytes()
    long = ("--editor", "toy:qwen-image-edit", "--judge", "toy:judge", "--steps", "3")
    code, _, error = invoke("imgedit", "--data", imgedit, *long, "--out", whole)
    assert code == 0, error
    assert (whole / "answers.jsonl").read_bytes() == before


def test_a_mistaken_editor_does_not_spoil_the_folder_for_the_right_one(imgedit: Path, tmp_path: Path) -> None:
    for editor, code in (("toy:other", 2), ("toy", 0)):
        arguments = ("imgedit", "--data", imgedit, *FAST, "--limit", "1", "--out", tmp_path, "--editor", editor)
        assert invoke(*arguments)[0] == code


def test_another_benchmark_in_the_same_folder_is_refused(imgedit: Path, whole: Path, tmp_path: Path) -> None:
    other = imgedit_folder(tmp_path / "other", items=10)
    code, _, error = invoke("imgedit", "--data", other, *FAST, "--out", whole)
    assert code == 2 and "holds edits made with data '9 items" in error and "now it is '10 items" in error


def test_a_full_disk_is_one_line_and_what_was_finished_stays(
    imgedit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = [4]

    def write(path: Path, content: bytes, write_bytes: Callable[[Path, bytes], int] = Path.write_bytes) -> int:
        room[0] -= path.name.endswith(".png.part")
        if room[0] < 0:
            write_bytes(path, content[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_bytes(path, content)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write)
        code, _, error = invoke("imgedit", "--data", imgedit, *FAST, "--out", tmp_path / "a")
        assert code == 2 and "No space left on device" in error.splitlines()[-1]
        code, _, error = invoke("toy", "--items", "9", "--steps", "2", "--out", tmp_path / "b")
        assert code == 2 and "No space left on device" in error.splitlines()[-1]
    assert len(list((tmp_path / "a").rglob("*.png"))) == 4 and not list(tmp_path.rglob("*.part"))
    assert invoke("imgedit", "--data", imgedit, *FAST, "--out", tmp_path / "a")[0] == 0


def test_other_settings_in_the_same_folder_are_refused_and_nothing_is_lost(imgedit: Path, whole: Path) -> None:
    before = pictures(whole)
    code, _, error = invoke("imgedit", "--data", imgedit, *FAST, "--seed", "7", "--out", whole)
    assert code == 2 and "holds edits made with seed 0, now it is 7" in error
    assert pictures(whole) == before
    with Writer() as server:
        judge = f"openai:{server.url}?model=other"
        code, _, error = invoke("imgedit", "--data", imgedit, *FAST, "--judge", judge, "--out", whole)
    assert code == 2 and "holds answers with" in error


def test_eval_toy_picks_by_the_judge_and_lists_the_nine_tasks(tmp_path: Path) -> None:
    one = ("toy", "--items", "9", "--steps", "3", "--out", tmp_path / "one", "--edits", "3")
    best = ("toy", "--items", "9", "--steps", "3", "--out", tmp_path / "best", "--best-of", "3")
    for arguments in (one, best):
        code, shown, error = invoke(*arguments)
        assert code == 0, error
        assert "background" in shown and "oracle" in shown
    rows = [json.loads(line) for line in (tmp_path / "one/edits/rows.jsonl").read_text().splitlines()[1:]]
    best_judged = [max(row["judge"] for row in rows if row["key"] == key) for key in {row["key"] for row in rows}]
    assert len(rows) == 27
    means = json.loads((tmp_path / "one/results.json").read_text())["tables"]["all"][-1]["means"]
    picked = json.loads((tmp_path / "best/results.json").read_text())["tables"]["all"][-1]["means"]
    assert means["oracle"] == pytest.approx(fmean(row["oracle"]["score"] for row in rows))
    assert picked["judge"] == pytest.approx(fmean(best_judged))
    code, shown, error = invoke("compare", tmp_path / "one", tmp_path / "best", "--out", tmp_path / "compare")
    assert code == 0, error
    assert (tmp_path / "compare/compare.html").is_file() and "Not comparable" not in shown
    assert "best_of differs (one: 1, best: 3)" in " ".join(shown.split())
