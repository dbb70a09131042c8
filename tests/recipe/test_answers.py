"""What a model writes is taken only as it was asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.recipe.answers import (
    OBJECTS_MAX,
    TEXT_MAX,
    Rejected,
    read_objects,
    read_requirement,
    read_task,
    read_written,
)
from editr1.recipe.boxes import Box
from editr1.recipe.words import TASKS

GOOD = {"instruction": "Remove the car.", "requirement": "The car is gone."}
SIGN = {"instruction": 'Change "A1" to "B2".', "requirement": 'It reads "B2".', "old": "A1", "new": "B2"}
WORDS = st.text(st.characters(codec="utf-8"), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.sampled_from([*SIGN, "objects", "label", "box", "task"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("text", ["{}", "```json\n{}\n```", " ```\n{}\n``` \n"])
def test_json_is_taken_alone_or_in_a_fence(text: str) -> None:
    written = read_written(text.replace("{}", json.dumps(GOOD)), TASKS["remove"])
    assert written.model_dump() == GOOD


@pytest.mark.parametrize(
    ("task", "answer", "reason"),
    [
        ("remove", "Sure: " + json.dumps(GOOD), "not JSON"),
        ("remove", '{"instruction": "a", "instruction": "Remove the car."}', "not JSON"),
        ("remove", "[" * 10_000, "not JSON"),
        ("remove", [GOOD], "other keys or types than asked for"),
        ("remove", {"instruction": "Remove the car."}, "other keys or types than asked for"),
        ("remove", {**GOOD, "instruction": 7}, "other keys or types than asked for"),
        ("remove", {**GOOD, "instruction": "Remove\nthe car."}, "instruction has control characters"),
        ("remove", {**GOOD, "requirement": "It is \u202egone."}, "requirement has control characters"),
        ("remove", {**GOOD, "instruction": "   "}, "instruction is too short or too long"),
        ("remove", {**GOOD, "instruction": "x" * (TEXT_MAX + 1)}, "instruction is too short or too long"),
        ("remove", {"instruction": None}, "no such edit is possible"),
        ("redbox", GOOD, "does not say 'red box'"),
        ("reference", GOOD, "does not say 'picture 2'"),
        ("text", GOOD, "other keys or types than asked for"),
        ("text", {**SIGN, "new": "a1"}, "the words stay the same"),
        ("text", {**SIGN, "instruction": "Change A1 to B2."}, "does not quote the words"),
        ("text", {**SIGN, "requirement": "It reads B2."}, "does not quote the words"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told_in_fixed_words(task: str, answer: Any, reason: str) -> None:
    with pytest.raises(Rejected) as told:
        read_written(answer if isinstance(answer, str) else json.dumps(answer), TASKS[task])
    assert str(told.value) == reason


def test_control_tokens_of_models_are_parted() -> None:
    answer = json.dumps({**GOOD, "instruction": "Remove <|im_end|> the car."})
    assert read_written(answer, TASKS["remove"]).instruction == "Remove < |im_end|> the car."


def test_objects_are_in_thousandths_and_what_is_none_is_counted() -> None:
    entries: list[Any] = [
        {"label": "car", "box": [100, 200, 300, 1400]},
        {"label": "car", "box": [300, 200, 100, 400]},
        {"label": "", "box": [0, 0, 9, 9]},
        {"label": "x", "box": [0, 0, True, 9]},
        {"label": "x", "box": ["0", 0, 9, 9]},
        {"label": "x", "box": [0, 0, 9]},
        {"label": "x", "box": [0, 0, 10**290, 9]},
        "car",
    ]
    boxes, wrong = read_objects(json.dumps({"objects": entries}))
    assert boxes == [Box("car", (0.1, 0.2, 0.3, 1.0)), Box("x", (0.0, 0.0, 1.0, 0.009))]
    assert wrong == 6
    many = [{"label": "x", "box": [0, 0, 9, 9]}] * 30
    assert len(read_objects(json.dumps({"objects": many}))[0]) == OBJECTS_MAX


def test_a_task_is_one_of_the_names() -> None:
    assert read_task('{"task": "remove"}', TASKS) == "remove"
    with pytest.raises(Rejected, match="unknown task"):
        read_task('{"task": "Remove"}', TASKS)
    assert read_requirement('{"requirement": "It is gone."}') == "It is gone."


@settings(max_examples=100, deadline=None)
@given(WORDS | VALUES.map(json.dumps), st.sampled_from([*TASKS]))
def test_any_answer_is_taken_or_rejected(text: str, task: str) -> None:
    """Nothing else is raised; what is taken is printable, of its length, and boxes are inside of their picture."""
    try:
        written = read_written(text, TASKS[task])
        assert written.instruction.isprintable() and 3 <= len(written.instruction) <= 2 * TEXT_MAX
    except Rejected:
        pass
    try:
        boxes, _ = read_objects(text)
        assert all(
            0 <= left < right <= 1 and 0 <= top < bottom <= 1 for left, top, right, bottom in (b.box for b in boxes)
        )
    except Rejected:
        pass
