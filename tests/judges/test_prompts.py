from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
import yaml
from PIL import Image

from editr1.config.rewards import Order
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.prompts import Question, load_prompt
from editr1.toy_models.language import load_tokenizer

ORDERS: tuple[Order, Order] = ("paper", "prefix")
SOURCE, EDIT = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
REQUEST = JudgeRequest(EditSample("", SOURCE, "remove the cat", "No cat is left.", "remove"), EDIT)


def test_the_paper_shows_source_and_edit_and_then_asks() -> None:
    parts = load_prompt("brief", "paper").parts(REQUEST)
    assert parts[1] is SOURCE and parts[3] is EDIT
    assert parts[4] == (
        "Judge an image edit. Instruction: remove the cat Requirement: No cat is left. Is the edit done and the rest "
        "kept? Answer with one digit, 0 (failed) to 5 (perfect)."
    )


def test_what_stands_before_the_edit_is_equal_for_a_group_in_prefix_order() -> None:
    prompt = load_prompt("full", "prefix")
    other = JudgeRequest(REQUEST.sample, SOURCE)
    one, two = prompt.parts(REQUEST), prompt.parts(other)
    assert one[:3] == two[:3] and one[3] is EDIT and two[3] is SOURCE
    assert "remove the cat" in str(one[0]) and "No cat is left." in str(one[0])


@pytest.mark.parametrize("template", ["brief", "full"])
@pytest.mark.parametrize("question", ["score", "yes_no", "think"])
def test_without_references_the_message_is_that_of_earlier_versions(template: str, question: Question) -> None:
    words = yaml.safe_load((resources.files("editr1.judges") / f"templates/{template}.yaml").read_text())
    places = {"instruction": "remove the cat", "requirement": "No cat is left.", "low": "0", "high": "5"}
    places["criterion"] = words["criteria"]["overall"]
    opening = " ".join(filter(None, [words["opening"].format(**places), words["tasks"].get("remove")]))
    ending = words["questions"][question].format(**places)
    paper, prefix = (load_prompt(template, order).parts(REQUEST, question) for order in ORDERS)
    assert paper == (words["source"], SOURCE, words["edit"], EDIT, f"{opening} {ending}")
    assert prefix == (f"{opening} {words['source']}", SOURCE, words["edit"], EDIT, ending)


@pytest.mark.parametrize(("template", "label"), [("brief", "Reference"), ("full", "Reference image")])
@pytest.mark.parametrize("question", ["score", "yes_no", "think"])
@pytest.mark.parametrize("order", ORDERS)
def test_references_are_numbered_and_shown_between_source_and_edit(
    template: str, label: str, question: Question, order: Order
) -> None:
    prompt = load_prompt(template, order)
    hat, scarf = Image.new("RGB", (8, 8), "green"), Image.new("RGB", (8, 8), "white")
    several = replace(REQUEST, sample=replace(REQUEST.sample, references=(hat, scarf)))
    without, parts = prompt.parts(REQUEST, question), prompt.parts(several, question)
    assert parts[:2] + parts[6:] == without
    assert parts[2:6] == (f"{label} 1:", hat, f"{label} 2:", scarf)


def test_a_task_adds_its_own_words_and_an_unknown_one_none() -> None:
    prompt = load_prompt("full", "paper")
    words = prompt.template.tasks
    assert words["remove"] in str(prompt.parts(REQUEST)[4])
    unknown = JudgeRequest(EditSample("", SOURCE, "remove the cat", task="new"), EDIT)
    assert not any(text in str(prompt.parts(unknown)[4]) for text in words.values())
    assert {"add", "remove", "replace", "adjust", "background", "style", "action", "extract", "compose"} <= set(words)


def test_scale_and_criterion_are_filled_in() -> None:
    text = str(load_prompt("full", "paper").parts(REQUEST, "score", "preservation", (1, 9))[4])
    assert "1 means that it failed, 9 that" in text and "kept that the instruction does not" in text
    assert "{" not in text


def test_braces_in_an_instruction_stay_as_they_are() -> None:
    odd = JudgeRequest(EditSample("", SOURCE, "write {low} on it", task="text"), EDIT)
    assert "write {low} on it" in str(load_prompt("full", "paper").parts(odd)[4])


def test_every_word_of_the_toy_judges_prompt_is_one_token() -> None:
    tokenizer = load_tokenizer()
    for question in ("score", "yes_no", "think"):
        for part in load_prompt("brief", "prefix").parts(REQUEST, question):
            if isinstance(part, str):
                assert len(tokenizer.tokenize(part)) <= len(part.replace(".", " .").replace(",", " ,").split()) + 14


def test_a_template_of_ones_own_is_named_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "version: '7'\nopening: 'Look: {instruction}'\nquestions: {score: '{criterion}'}\n"
    text += "criteria: {overall: 'Good?'}\n"
    file.write_text(text)
    prompt = load_prompt(str(file), "paper")
    assert prompt.parts(REQUEST)[4] == "Look: remove the cat Good?"
    assert prompt.version.startswith("mine-7-") and prompt.version.endswith("/paper")
    file.write_text(text.replace("Good", "Fine"))
    assert load_prompt(str(file), "paper").version != prompt.version
    with pytest.raises(UserError, match="has no 'yes_no'; it has score"):
        prompt.parts(REQUEST, "yes_no")
    with pytest.raises(UserError, match="has no 'quality'; it has overall"):
        prompt.parts(REQUEST, "score", "quality")


@pytest.mark.parametrize("order", ORDERS)
def test_a_template_of_ones_own_holds_words_to_the_byte(tmp_path: Path, order: Order) -> None:
    words = {
        "version": "paper", "opening": "\nJudge {instruction}.\n[{requirement}]\n", "source": "", "edit": "",
        "questions": {"score": "0 to 5:"}, "criteria": {"overall": ""}, "tasks": {"remove": "\tIt is gone {{{low}}}."},
        "separator": "", "no_requirement": "",
    }  # fmt: skip
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(words))
    prompt = load_prompt(str(tmp_path / "own.yaml"), order)
    bare = replace(REQUEST, sample=replace(REQUEST.sample, requirement=""))
    opening = "\nJudge remove the cat.\n[]\n\tIt is gone {0}."
    expected = (opening, SOURCE, EDIT, "0 to 5:") if order == "prefix" else (SOURCE, EDIT, f"{opening}0 to 5:")
    assert prompt.parts(bare) == expected


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version: [", "not YAML"),
        ("version: '1'", "opening: Field required"),
        ("version: '1'\nopening: '{who}'\nquestions: {}\ncriteria: {overall: x}", r"opening: \{who\} is not filled in"),
        (
            "version: '1'\nopening: x\nquestions: {}\ncriteria: {overall: '{criterion}'}",
            r"criteria: \{criterion\} is not",
        ),
        ("version: '1'\nopening: x\nquestions: {}\ncriteria: {}", "criteria: 'overall' is missing"),
        ("version: '1'\nopening: x\nquestions: {}\ncriteria: {overall: x}\nmore: 1", "more: Extra"),
        ("version: '1'\nopening: x\nreference: '{n}'\nquestions: {}\ncriteria: {overall: x}", r"\{n\} .* are number"),
        ("version: '1'\nopening: '{'\nquestions: {}\ncriteria: {overall: x}", "opening: "),
    ],
)
def test_a_broken_template_is_refused_with_its_place(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=problem):
        load_prompt(str(tmp_path / "t.yaml"), "paper")


def test_a_template_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(UserError, match=r"'nope' is neither a file .* nor shipped \(brief, full\)"):
        load_prompt("nope", "paper")
