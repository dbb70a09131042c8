"""The calls of the Python API do what the commands do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from editr1 import EditSample, JudgeRequest, Score, UserError, open_editor, open_judge, rollout, score
from editr1.cli import main as cli
from editr1.editors.editor import Editor
from editr1.toy.world import ToyDataset
from tests.training.runs import Make, RedJudge


def equal(one: Image.Image, other: Image.Image) -> bool:
    return np.array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture
def sample() -> EditSample:
    return ToyDataset("rl", 4, 0, "small")[0]


def test_an_edit_is_that_of_the_command_and_depends_on_its_seed_and_place_alone(
    sample: EditSample, tmp_path: Path
) -> None:
    editor = open_editor("toy", device="cpu")
    one, two = rollout(editor, sample, 2, steps=3, seed=5)
    assert equal(one, rollout(editor, sample, steps=3, seed=5)[0]) and not equal(one, two)
    sample.source.save(tmp_path / "source.png")
    words = ["edit", str(tmp_path / "source.png"), sample.instruction, "--editor", "toy", "--steps", "3", "--seed", "5"]
    result = CliRunner().invoke(cli.app, [*words, "--out", str(tmp_path / "edit.png")])
    assert result.exit_code == 0, result.output
    assert equal(one, Image.open(tmp_path / "edit.png"))


def test_scores_are_those_of_the_judge_in_the_order_of_the_edits(sample: EditSample) -> None:
    judge, edits = open_judge("toy", device="cpu"), [sample.source, Image.new("RGB", (64, 64), "red")]
    scores = score(judge, sample, edits)
    assert scores == judge.score([JudgeRequest(sample, edit) for edit in edits])
    assert all(each.value is not None and 0 <= each.value <= 1 for each in scores) and scores[0] != scores[1]
    assert score(open_judge("toy?method=yes_no", device="cpu"), sample, edits) != scores
    assert score(judge, sample, []) == []


@pytest.mark.parametrize("wrong", [[Score(2.0)], [Score(float("nan"))], [0.5], [], [Score(0.5)] * 2])
def test_what_a_judge_of_ones_own_gives_wrongly_is_one_line(sample: EditSample, wrong: list[Score]) -> None:
    with pytest.raises(UserError, match=r"^the judge gave .*Score|^the judge gave \d scores for 1 edits"):
        score(RedJudge(lambda call, scores: wrong), sample, [sample.source])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"edits": 0}, "edits=0 must be at least 1"),
        ({"steps": 1}, "steps=1 must be at least 2"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"scheduler": "heun"}, "there is no scheduler 'heun'; there are dpm2, euler"),
    ],
)
def test_a_wrong_argument_is_one_line(
    options: dict[str, Any], words: str, sample: EditSample, tiny_editor: Editor
) -> None:
    with pytest.raises(UserError, match=f"^rollout: {words}$"):
        rollout(tiny_editor, sample, **options)


def test_a_path_in_place_of_a_picture_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^item 'a': a picture is str, not a Pillow image; open it"):
        EditSample("a", "cat.png", "add a hat")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nowhere/at-all.d", {}, "nowhere"),
        ("toy", {"lora": "none"}, "none"),
        ("toy", {"device": "tpu"}, "tpu"),
    ],
)
def test_an_editor_that_is_not_there_is_one_line(name: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        open_editor(name, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_judge_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for name in (str(tmp_path / "none"), "toy?scale=3", "toy?metod=yes_no"):
        with pytest.raises(UserError) as caught:
            open_judge(name)
        assert "\n" not in str(caught.value)


def test_the_lora_of_a_run_is_its_averaged_weights(make: Make, tiny_editor_path: Path) -> None:
    trainer, sample = make(), EditSample("a", Image.new("RGB", (32, 32), "blue"), "add a cat")
    checkpoint = trainer.train()
    with trainer.ema.swap():
        edits = rollout(trainer.editor, sample, steps=2)
    for lora in (trainer.out, checkpoint, str(checkpoint / "ema")):
        editor = open_editor(str(tiny_editor_path), lora=lora, pixels=1024, guidance=1.0, device="cpu")
        (edit,) = rollout(editor, sample, steps=2)
        assert np.abs(np.asarray(edit, np.int16) - np.asarray(edits[0], np.int16)).max() <= 1
    plain = open_editor(str(tiny_editor_path), pixels=1024, guidance=1.0, device="cpu")
    assert not equal(rollout(plain, sample, steps=2)[0], edits[0])
