"""`editr1 check`, and the same check before `editr1 train`: all that is wrong in one pass, before a weight."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import editr1
from editr1.cli import check as checks
from editr1.cli import main as cli
from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.data.samples import ItemLine, JsonlDataset
from editr1.editors.check import component_weights
from editr1.errors import UserError
from editr1.model_files import parameters
from editr1.toy.assets import WEIGHTS
from editr1.training import preflight
from editr1.training.checkpoint import resolve
from editr1.training.data_record import read_record
from editr1.training.mask_check import Masks, faults_of_masks, masks_in
from editr1.training.run_files import DATA
from editr1.training.seal import STATE

COLOURS = ("red", "blue", "green", "black", "white")


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.stderr
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def run(tmp_path: Path, tiny_editor_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The YAML of a run with a tiny editor, the toy judge and five pictures of one item each."""
    folder = tmp_path / "data"
    folder.mkdir()
    for colour in COLOURS:
        Image.new("RGB", (32, 48), colour).save(folder / f"{colour}.png")
    lines = [json.dumps({"source": f"{colour}.png", "instruction": "add a cat"}) for colour in COLOURS]
    (folder / "data.jsonl").write_text("\n".join(lines))
    config = {
        "editor": {"path": str(tiny_editor_path), "device": "cpu", "pixels": 1024},
        "judge": {"path": "toy:judge", "template": "brief", "order": "prefix"},
        "data": {"path": str(folder)},
        "rollout": {"group_size": 2, "groups_per_step": 2, "steps": 2},
        "algorithm": {"filter": "off", "std": "group"},
        "adapter": {"rank": 2},
        "steps": 1,
        "out": str(tmp_path / "out"),
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run.yaml"


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading weights fails the test."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("weights are loaded")

    monkeypatch.setattr("editr1.editors.open.load_pipeline", refuse)
    monkeypatch.setattr("editr1.judges.models.local._load_model", refuse)


@pytest.mark.usefixtures("no_weights")
def test_a_run_with_nothing_wrong_is_described_and_nothing_is_written(run: Path) -> None:
    code, out, err = invoke("check", str(run))
    assert (code, err) == (0, "")
    facts = {line.split("  ")[0]: line.split("  ", 1)[1].strip() for line in out.splitlines()}
    assert facts["data"] == f"{run.parent / 'data'}: 5 items; edit 5; 5 without requirement"
    assert facts["data pictures"] == "5 pictures of 32x48"
    assert facts["out"].endswith("a new run") and "qwen-image-edit-plus" in facts["editor"]
    assert facts["device"].startswith("cpu, float32, ") and facts["judge"] == "toy:judge, score_logit"
    assert not (run.parent / "out").exists()


REWARDS = """rewards={f: {kind: function, path: 'no.such:f'}, h: {kind: http, path: 'http://127.0.0.1:9/s'},
c: {kind: clip_image, path: /nowhere}, e: {kind: editscore, path: /nowhere},
j: {kind: judge, judge: {path: /nowhere/judge}}}"""


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("command", ["check", "train"])
def test_all_faults_of_a_run_are_told_at_once_one_line_each(run: Path, command: str) -> None:
    data = run.parent / "data"
    (data / "red.png").write_bytes((data / "red.png").read_bytes()[:50])
    (data / "blue.png").unlink()
    with (data / "data.jsonl").open("a") as file:
        file.write('\n{"source": "green.png", "instrution": "typo"}')
    dead = "judge={endpoints: ['http://127.0.0.1:9/v1'], model: m}"
    kept = "preservation={features: /nowhere/dino}"
    code, out, err = invoke(command, str(run), f"out={run}", "editor.pixels=10", dead, REWARDS, kept)
    assert (code, out) == (2, "")
    expected = [
        f"out={run}: {run} is a file; choose a folder",
        "data.jsonl:2: there is no picture 'blue.png'",
        "data.jsonl:6: instruction: Field required",
        "editor.pixels=10",
        "judge: no answer from 127.0.0.1:9",
        "rewards.f: reward function 'no.such:f' cannot be loaded",
        "rewards.h: 127.0.0.1:9",
        "rewards.c: no model in /nowhere",
        "rewards.e: no model in /nowhere",
        "rewards.j: judge: no folder at /nowhere/judge",
        "preservation.features: no model in /nowhere/dino",
        "red.png of item 'line-1'",
    ]
    lines = err.splitlines()
    assert all(line.startswith("editr1: ") for line in lines)
    assert [words for words in expected if not any(words in line for line in lines)] == []


TYPICAL = {
    "wrong_line": "data.jsonl:6: instruction: Field required",
    "broken_picture": "white.png of item",
    "no_data": "cannot read the dataset no_data",
    "judge.path=toy:nobody": "nobody",
    "judge={path: half}": "half has no processor_config.json or preprocessor_config.json",
    "judge={endpoints: ['http://127.0.0.1:9/v1'], model: m}": "no answer from 127.0.0.1:9",
    "editor.path=nowhere": "no diffusers pipeline there",
    "out=run.yaml": "run.yaml is a file; choose a folder",
    "rewards={f: {kind: function, path: 'no.such:f'}}": "reward function 'no.such:f' cannot be loaded",
}
"""Mistakes by what is overridden, or done to the data, with words of what is told."""
COMMANDS = """
import json, sys
from editr1.cli.main import app
for arguments in json.loads(sys.argv[1]):
    try:
        app(arguments)
    except SystemExit as error:
        heavy = [name for name in ("diffusers", "transformers", "peft") if name in sys.modules]
        print(error.code, *heavy, file=sys.stderr)
"""


def test_typical_mistakes_are_told_before_the_libraries_of_models_are_imported(run: Path) -> None:
    """`import torch, diffusers, transformers` takes most of ten seconds; none but the first is needed to say this."""
    half = run.parent / "half"
    half.mkdir()
    (half / "config.json").write_text("{}")
    data = run.parent / "data"
    for name in ("wrong_line", "broken_picture"):
        shutil.copytree(data, run.parent / name)
    with (run.parent / "wrong_line" / "data.jsonl").open("a") as file:
        file.write('\n{"source": "green.png", "instrution": "typo"}')
    (run.parent / "broken_picture" / "white.png").write_text("no picture")
    overrides = [name if "=" in name else f"data.path={name}" for name in TYPICAL]
    commands = [[command, "run.yaml", override] for override in overrides for command in ("check", "train")]
    process = [sys.executable, "-c", COMMANDS, json.dumps(commands)]
    tree = {**os.environ, "PYTHONPATH": str(Path(editr1.__file__).parents[1])}
    result = subprocess.run(process, cwd=run.parent, env=tree, capture_output=True, text=True, check=True)
    lines = result.stderr.splitlines()
    expected = [line for words in TYPICAL.values() for line in (words, "2", words, "2")]
    assert len(lines) == len(expected), "\n".join(lines)
    assert [line for line, words in zip(lines, expected, strict=True) if words not in line] == []
    assert {line for line in lines if line[:1].isdigit()} == {"2"}


@pytest.mark.usefixtures("no_weights")
def test_faults_that_need_the_libraries_of_models_are_told_before_a_weight(run: Path) -> None:
    code, _, err = invoke("check", str(run), "judge.scale=[0, 100]")
    assert (code, err.count("\n")) == (2, 1) and "editr1: judge: the judge's tokenizer" in err
    assert "not as one token" in err


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("command", ["check", "train"])
def test_an_instruction_that_the_editor_would_cut_is_told_before_a_weight(run: Path, command: str) -> None:
    editor = ["editor.path=toy:flux-kontext", "editor.pixels=4096"]
    with (run.parent / "data" / "data.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"source": "red.png", "instruction": 40 * "add the cat ", "key": "long"}))
    code, _, err = invoke(command, str(run), *editor)
    assert code == 2
    words = "tokens with its template, flux-kontext takes 32; shorten it, or raise editor.text_tokens"
    assert err == f"editr1: data: item 'long': instruction: it has 121 {words}\n"
    limit = ["editor.text_tokens=121"]
    assert invoke("check", str(run), *editor, *limit)[0] == 0
    options = ["--editor", "toy:flux-kontext", "--judge", "toy", "--out", str(run.parent / "measured")]
    code, _, err = invoke("eval", "data", str(run.parent / "data"), *options)
    assert code == 2 and err.startswith("editr1: item 'long': instruction: it has 121 tokens") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("run.yaml", "is a file; choose a folder"),
        ("run.yaml/deeper", "is a file; choose a folder"),
        ("data", "holds other files (black.png, blue.png, data.jsonl) and no run; choose an empty folder"),
        ("/proc/editr1/run", "/proc cannot be written (No such file or directory); choose another folder"),
        ("x" * 300, "there can be no such folder"),
    ],
)
@pytest.mark.usefixtures("no_weights")
def test_a_folder_that_cannot_hold_the_run_is_one_line(run: Path, out: str, words: str) -> None:
    code, _, err = invoke("train", str(run), f"out={out}")
    assert code == 2 and err.count("\n") == 1 and words in err


@pytest.mark.usefixtures("no_weights")
def test_a_part_that_takes_long_is_named_while_it_is_checked(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, said = threading.Event(), list[str]()

    def tell(text: str) -> None:
        said.append(text)
        if "judge" in text:
            told.set()

    monkeypatch.setattr(checks, "SLOW", 0.01)
    monkeypatch.setattr(checks, "tell", tell)
    monkeypatch.setattr(preflight, "check_judge", lambda *_: [] if told.wait(60) else ["it was not named"])
    assert invoke("check", str(run))[0] == 0
    assert "still checking judge ..." in said


@pytest.mark.usefixtures("no_weights")
def test_a_run_with_other_settings_is_told_before_weights_are_loaded(run: Path) -> None:
    config = load_config(run)
    folder = run.parent / "out" / "checkpoints" / "step_000003"
    folder.mkdir(parents=True)
    state = {"format": 1, "step": 3, "seconds": 9, "start": {}, "files": {}}
    state["config"] = resolve(config).model_dump(mode="json")
    (folder / STATE).write_text(json.dumps(state))
    assert "goes on after step 3" in invoke("check", str(run))[1]
    code, _, err = invoke("train", str(run), "optim.lr=1")
    assert code == 2 and "holds a run with other settings (optim.lr: 0.0003 there, 1.0 here)" in err


@pytest.mark.usefixtures("no_weights")
def test_a_lora_to_start_from_and_a_folder_for_encodings_are_checked(run: Path) -> None:
    code, _, err = invoke("check", str(run), "adapter.init=nowhere", f"memory.cache={run}")
    assert code == 2 and err.splitlines() == [
        "editr1: adapter.init: nowhere: no LoRA there; give a .safetensors file, a folder with exactly one, or a "
        "checkpoint of `editr1 train`",
        f"editr1: memory.cache={run}: {run} is a file; choose a folder",
    ]


@pytest.mark.usefixtures("no_weights")
def test_lines_are_read_once_where_a_part_of_the_data_is_held_out(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, opened = JsonlDataset.__init__, list[Path]()

    def count(self: JsonlDataset, folder: Path, *more: Any) -> None:
        opened.append(folder)
        whole(self, folder, *more)

    monkeypatch.setattr(JsonlDataset, "__init__", count)
    code, out, _ = invoke("check", str(run), "evaluation={split: 2}")
    assert code == 0 and "2 held-out items, 3 are left to train on" in out and opened == [run.parent / "data"]


@pytest.mark.usefixtures("no_weights")
def test_a_wrong_line_is_told_once_where_a_part_of_the_data_is_held_out(run: Path) -> None:
    file = run.parent / "data" / "data.jsonl"
    file.write_text(file.read_text() + "\n{}")
    code, _, err = invoke("check", str(run), "evaluation={split: 2}")
    assert code == 2 and err.count("data.jsonl:6") == err.count("\n") == 1


def test_weights_that_do_not_fit_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "memory_of", lambda device: 1000)
    code, _, err = invoke("check", str(run))
    assert (
        code == 2 and "memory: weights of " in err and "do not fit into the 0.0 GB of cpu; see memory.quantize" in err
    )
    judge = parameters(WEIGHTS / "judge") * 4
    whole = sum(component_weights(Path(load_config(run).editor.path)).values()) * 4
    monkeypatch.setattr(preflight, "memory_of", lambda device: judge + whole - 1)
    assert invoke("check", str(run))[0] == 2
    assert invoke("check", str(run), "parallel.shard=8")[0] == 0  # a process holds an eighth of the denoiser


def test_a_task_that_no_item_has_is_a_warning(run: Path) -> None:
    rewards = "rewards={kept: {kind: preservation, weight_by_task: {edit: 2, stlye: 0}}}"
    more = ["judge.criteria_by_task={remoev: {instruction: 1}}", "rollout.group_size=3"]
    code, _, error = invoke("check", str(run), rewards, *more)
    assert code == 0
    assert "rewards.kept.weight_by_task: no item has the task 'stlye'; they have edit" in error
    assert "judge.criteria_by_task: no item has the task 'remoev'" in error
    assert "the task" not in invoke("check", str(run), "judge.criteria_by_task={edit: {instruction: 1}}")[2]


def test_a_whole_task_that_no_item_has_is_a_warning_unless_it_is_the_default(run: Path) -> None:
    whole = ["rewards={kept: {kind: preservation, whole_tasks: [style, edit, seasn]}}", "rollout.group_size=3"]
    code, _, error = invoke("check", str(run), *whole, "preservation={whole_tasks: [stlye]}")
    assert code == 0 and error.splitlines() == [
        "editr1: warning: rewards.kept.whole_tasks: no item has the task 'seasn'; they have edit",
        "editr1: warning: preservation.whole_tasks: no item has the task 'stlye'; they have edit",
    ]


FEW = "is derived from 3 edits or more, and rollout.group_size=2; raise it, or"
GROUP = f'masks="group": a mask {FEW} set masks to "data"'
EITHER = f'masks="either": a mask for items without one {FEW} give all items masks'
NONE = 'masks="data": none of 5 items has a mask; give masks in the data, or set it to "either"'


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("masks", "size", "given", "told"),
    [
        ("data", 3, 0, NONE),
        ("data", 2, 1, ""),
        ("group", 2, 5, GROUP),
        ("group", 3, 0, ""),
        ("either", 2, 0, EITHER),
        ("either", 2, 4, f"warning: {EITHER}"),
        ("either", 2, 5, ""),
        ("edit", 2, 0, ""),
    ],
)
def test_masks_that_no_item_can_have_are_refused_and_those_that_some_lack_are_told(
    run: Path, masks: str, size: int, given: int, told: str
) -> None:
    file = run.parent / "data" / "data.jsonl"
    box = {"unit": "share", "boxes": [[0, 0, 0.5, 0.5]]}
    items = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("\n".join(json.dumps(item | ({"mask": box} if i < given else {})) for i, item in enumerate(items)))
    warned = told.startswith("warning: ")
    users = {"rewards": f"{{kept: {{kind: preservation, masks: {masks}}}}}", "preservation": f"{{masks: {masks}}}"}
    if masks == "edit":
        users.pop("preservation")
    code, _, error = invoke("check", str(run), f"rollout.group_size={size}", *(f"{k}={v}" for k, v in users.items()))
    assert code == (2 if told and not warned else 0)
    places = ["rewards.kept", "preservation"]
    lines = [f"editr1: {'warning: ' * warned}{place}.{told.removeprefix('warning: ')}" for place in places]
    assert error.splitlines() == (lines if told else [])
    if told and not warned:
        code, _, error = invoke("train", str(run), f"rollout.group_size={size}", f"rewards={users['rewards']}")
        assert (code, error) == (2, lines[0] + "\n")


def test_a_part_of_a_long_file_without_masks_is_a_warning() -> None:
    config = load_config("toy", ["preservation={masks: data}"])
    lines = [ItemLine(source="a", instruction="b")] * 2
    assert [*faults_of_masks(config, masks_in(lines, 3))] == [
        (
            'preservation.masks="data": no item looked at has a mask; give masks in the data, or set it to "either"',
            False,
        )
    ]
    assert [*faults_of_masks(config, Masks())] == []


def test_the_items_of_the_toy_have_masks(tmp_path: Path) -> None:
    small = [f"out={tmp_path / 'toy'}", "rollout.group_size=2", "+preserve"]
    assert invoke("check", "toy", *small)[::2] == (0, "")
    code, _, error = invoke("check", "toy", *small, "preservation.masks=group")
    assert code == 2 and error == f"editr1: preservation.{GROUP}\n"


def test_repeated_items_are_a_warning(run: Path) -> None:
    file = run.parent / "data" / "data.jsonl"
    file.write_text(file.read_text() + "\n" + file.read_text().splitlines()[0])
    code, _, err = invoke("check", str(run))
    assert code == 0 and err == "editr1: warning: data: 1 items repeat the picture and instruction of another\n"


def test_held_out_pictures_are_known_by_their_content_whatever_their_names(run: Path) -> None:
    other = run.parent / "other"
    other.mkdir()
    (other / "renamed.png").write_bytes((run.parent / "data" / "red.png").read_bytes())
    Image.new("RGB", (48, 32), "white").save(other / "red.png")
    lines = [{"source": name, "instruction": "Make it blue."} for name in ("renamed.png", "red.png")]
    (other / "data.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, _, err = invoke("check", str(run), f"evaluation={{data: {other}}}")
    assert code == 0 and "warning: evaluation: 1 of its source pictures are in the training data too" in err


def test_held_out_items_are_checked_too(run: Path) -> None:
    (run.parent / "data" / "red.png").write_text("no picture")
    other = run.parent / "other"
    other.mkdir()
    (other / "data.jsonl").write_text("{}")
    code, _, err = invoke("check", str(run), f"evaluation={{data: {other}}}")
    assert code == 2 and "evaluation: " in err and "other/data.jsonl:1" in err and "red.png" in err


def beside(
    run: Path, seconds: Callable[[], float], capsys: pytest.CaptureFixture[str], block: Callable[[], Any]
) -> str:
    """Run a block as training is run; what was told."""
    with checks.checked(load_config(run), seconds):
        block()
    return capsys.readouterr().err


def test_a_run_waits_ten_seconds_for_its_pictures_and_looks_at_the_others_beside_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run.parent / "data" / "white.png").write_text("no picture")
    config, names = load_config(run), {"editr1-pictures"}

    def others() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name in names]

    clock = itertools.count(0.0, 4.0).__next__  # each picture takes 4 s
    seen_last = last_of(config)
    if seen_last != "white.png":  # the order is random but fixed: the broken one must come late
        Image.new("RGB", (32, 48)).save(run.parent / "data" / "white.png")
        (run.parent / "data" / seen_last).write_text("no picture")
    said = beside(run, clock, capsys, lambda: [thread.join() for thread in others()])
    assert "looked at 3 of 5 pictures in 10 s; the others are looked at beside the training" in said
    assert f"{seen_last} of item" in said and not others()


def test_a_run_with_few_pictures_looks_at_all_of_them_first(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "data" / "white.png").write_text("no picture")
    with pytest.raises(UserError, match=r"white\.png"):
        beside(run, lambda: 0.0, capsys, lambda: pytest.fail("it is started"))
    Image.new("RGB", (32, 48)).save(run.parent / "data" / "white.png")
    assert beside(run, lambda: 0.0, capsys, lambda: None) == ""


def test_pictures_that_are_looked_at_beside_the_training_are_recorded_and_compared(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, out, go, look = load_config(run), run.parent / "out", threading.Event(), checks._look_beside
    monkeypatch.setattr(checks, "_look_beside", lambda *arguments: go.wait(60) and look(*arguments))

    def session() -> list[bool]:
        """Whether each picture is in the record, when training begins."""
        with checks.checked(config, itertools.count(0.0, 4.0).__next__) as record:  # each picture takes 4 s
            assert record is not None
            record.begin()
            known = [hashes != [None] for _, _, hashes in read_record(out / DATA).sample]
            go.set()
            for thread in threading.enumerate():
                if thread.name == "editr1-pictures":
                    thread.join()
        return known

    out.mkdir()
    assert sum(session()) == 3
    assert all(hashes != [None] for _, _, hashes in read_record(out / DATA).sample)
    folder = out / "checkpoints" / "step_000003"
    folder.mkdir(parents=True)
    state = {"format": 1, "step": 3, "seconds": 9, "start": {}, "files": {}}
    (folder / STATE).write_text(json.dumps({**state, "config": resolve(config).model_dump(mode="json")}))
    last = last_of(config)
    Image.new("RGB", (32, 48), "pink").save(run.parent / "data" / last)
    capsys.readouterr()
    assert all(session())
    assert f"{last} of item" in (said := capsys.readouterr().err) and "is another one than when the run began" in said


def last_of(config: Config) -> str:
    """The picture that is looked at last."""
    (pictures,) = checks.find(config).pictures.values()
    pictures._left = iter(order := [*pictures._left])
    return Path(str(order[-1][0])).name


def test_the_four_lines_of_the_readme_with_toy_models_need_nothing_more(run: Path) -> None:
    data = run.parent / "data"
    (run.parent / "four.yaml").write_text(
        f"editor: {{path: toy}}\njudge: {{path: toy}}\ndata: {{path: {data}}}\nout: four\n"
    )
    small = ["steps=1", "rollout.groups_per_step=1", "rollout.group_size=2", "rollout.steps=2", "editor.device=cpu"]
    code, out, err = invoke("train", "four.yaml", *small, "algorithm.timesteps_per_image=1")
    assert code == 0, err
    settings = yaml.safe_load((run.parent / "four" / "config.yaml").read_text())
    assert (settings["editor"]["dtype"], settings["editor"]["pixels"]) == ("float32", 64 * 64)
    assert (settings["judge"]["template"], settings["judge"]["order"]) == ("brief", "prefix")
    assert out.strip().endswith("step_000001")


def test_the_demo_refuses_a_folder_that_cannot_hold_it_before_it_loads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editr1.cli.demo.open_config_editor", lambda config: pytest.fail("it loads the editor"))
    (tmp_path / "file").write_text("")
    code, _, err = invoke("demo", "--out", str(tmp_path / "file"))
    assert code == 2 and err == f"editr1: out={tmp_path}/file: {tmp_path}/file is a file; choose a folder\n"
