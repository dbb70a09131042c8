"""A judge of the user's own code, by the name of its class or of itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from PIL import Image

from editr1.config.rewards import FunctionConfig
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest, Score, close, compares
from editr1.judges.check import check_reward
from editr1.judges.open import open_reward
from editr1.judges.rewards.function import FunctionReward, open_own_judge

RED = Image.new("RGB", (8, 8), "red")
REQUESTS = [JudgeRequest(EditSample("a", RED, "make it blue"), RED)] * 2


class Places:
    """The place of each edit in its group."""

    remote = True
    compares = True

    def __init__(self, best: float = 1.0) -> None:
        self.best, self.closed = best, False

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return [Score(self.best * place / len(requests)) for place in range(len(requests))]

    def close(self) -> None:
        self.closed = True


class Mute:
    """Does not say whether it is remote."""

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return []


class Short(Places):
    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        return []


half = Places(0.5)


def function(source: Image.Image, edit: Image.Image, instruction: str, requirement: str, task: str) -> float:
    return 0.25


@pytest.mark.parametrize(("name", "values"), [("Places", [0, 0.5]), ("half", [0, 0.25]), ("function", [0.25, 0.25])])
def test_a_class_a_judge_and_a_function_score_a_group(name: str, values: list[float]) -> None:
    settings = FunctionConfig(path=f"{__name__}:{name}")
    judge = open_reward(settings, "cpu", torch.float32)
    assert [score.value for score in judge.score(REQUESTS)] == values
    assert isinstance(judge, FunctionReward) == (name == "function")
    assert compares(judge) == judge.remote == (name != "function")
    assert check_reward(settings, REQUESTS) == []


def test_an_own_judge_is_closed_as_any() -> None:
    judge = open_own_judge(f"{__name__}:Places")
    close(judge)
    assert isinstance(judge, Places) and judge.closed


@pytest.mark.parametrize("name", ["Mute", "RED"])
def test_what_is_neither_judge_nor_function_is_one_line(name: str) -> None:
    with pytest.raises(UserError, match=rf":{name}' is a \w+, .*not .* judge with `remote` and `score`$"):
        open_own_judge(f"{__name__}:{name}")


def test_an_own_judge_that_gives_too_few_scores_is_told_before_the_run() -> None:
    (line,) = check_reward(FunctionConfig(path=f"{__name__}:Short"), REQUESTS)
    assert f"the reward {__name__}:Short gave 0 scores for 1 edits" in line
