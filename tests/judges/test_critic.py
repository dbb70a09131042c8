"""A user's template for a model with words of its own: what servers get, to the byte, and what answers are read as."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.config.rewards import JudgeConfig
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.assembly import assemble, open_words
from editr1.judges.base import Answer, Judge, JudgeRequest, close
from editr1.judges.check import check_judge
from editr1.judges.critic import CriticJudge, load_critic
from editr1.judges.models.local import TransformersModel
from editr1.judges.models.remote import OpenAIModel, picture_url
from editr1.judges.open import open_judge
from tests.documents import blocks, name_of
from tests.judges.fault_server import FaultServer
from tests.judges.service import service
from tests.judges.test_mllm import Scripted, writes
from tests.judges.tiny_judge import build_tiny_judge

SOURCE, EDIT, HAT = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green"))
REQUEST = JudgeRequest(EditSample("", SOURCE, "write {low} on\nit", "", "text"), EDIT)
BEFORE, BETWEEN, AFTER = "\n Before [{instruction}]\t\n", "  ", 'After.\r\n{{"score": N}} «{requirement}»\n\n'
WORDS: dict[str, Any] = {
    "version": "1",
    "system": " You judge. ",
    "questions": [
        {
            "message": [BEFORE, {"image": "source"}, BETWEEN, {"image": "edit"}, AFTER],
            "answers": {
                "execution": {"json": "score[0]", "min": 0, "max": 25},
                "consistency": {"json": "score[1]", "min": 0, "max": 25},
            },
        },
        {
            "message": [{"image": "edit"}, "Natural?"],
            "answers": {"natural": {"regex": r"Score: ([\d.]+)", "min": 1, "max": 4}},
        },
    ],
}
CME = "execution * (0.6 + 0.4 * consistency)"
TWO = {"tokens": ["0", "1"]}


def template(folder: Path, words: dict[str, Any] = WORDS, **changes: Any) -> str:
    file = folder / "critic.yaml"
    file.write_text(yaml.safe_dump({**words, **changes}, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(file)


def settings(file: str, **own: Any) -> JudgeConfig:
    where = {} if {"path", "endpoints"} & {*own} else {"path": "nowhere"}
    return JudgeConfig.model_validate({"method": "template", "template": file, **where, **own})


def says(text: str, tokens: int = 7) -> tuple[int, bytes]:
    usage = {"prompt_tokens": tokens, "completion_tokens": 1}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return 200, json.dumps({"choices": [choice], "usage": usage}).encode()


@contextmanager
def judge_at(file: str, replies: Sequence[tuple[int, bytes]], **own: Any) -> Iterator[tuple[Judge, list[Any]]]:
    with service([*replies]) as (url, bodies):
        endpoint = {"endpoints": (url.replace("/score", "/v1"),), "model": "critic", "timeout": 20, "tries": 2}
        asked = settings(file, **endpoint, **own)
        judge = assemble(asked, open_words(asked), OpenAIModel(asked, backoff=0.002))
        try:
            yield judge, bodies
        finally:
            close(judge)


def shown(image: Image.Image) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": picture_url(image, None)}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_a_server_gets_the_bytes_of_the_file(tmp_path: Path) -> None:
    criteria = {"execution": 3.0, "consistency": 1.0}
    with judge_at(template(tmp_path), [says('{"score": [20, 5]}')], criteria=criteria) as (judge, bodies):
        (score,) = judge.score([REQUEST])
    (body,) = bodies  # two criteria of one answer are asked for once
    assert body["messages"] == [
        {"role": "system", "content": " You judge. "},
        {
            "role": "user",
            "content": [
                text("\n Before [write {low} on\nit]\t\n"),
                shown(SOURCE),
                text("  "),
                shown(EDIT),
                text('After.\r\n{"score": N} «»\n\n'),
            ],
        },
    ]
    assert {key: body[key] for key in ("model", "max_tokens", "temperature")} == {
        "model": "critic", "max_tokens": 512, "temperature": 0.0,
    }  # fmt: skip
    assert "logprobs" not in body
    assert {name: part.value for name, part in score.parts.items()} == {"execution": 0.8, "consistency": 0.2}
    assert score.value == pytest.approx((3 * 0.8 + 0.2) / 4) and score.tokens == 8
    assert score.prompt.startswith("critic-1-")


@pytest.mark.parametrize("block", ["|", "|-", "|+", ">-"])
def test_a_message_is_what_yaml_says_it_is(tmp_path: Path, block: str) -> None:
    file = tmp_path / "block.yaml"
    message = f"      - {{image: edit}}\n      - {block}\n        Is this\n          good? {{{{0-5}}}}\n\n"
    file.write_text(f"version: a\nquestions:\n  - message:\n{message}    answers: {{a: {{json: s, min: 0, max: 5}}}}\n")
    raw = yaml.safe_load(file.read_text())["questions"][0]["message"][1]
    prompt = load_critic(str(file))
    assert [*prompt.criteria["a"].parts(REQUEST)] == [EDIT, raw.replace("{{", "{").replace("}}", "}")]
    file.write_text(file.read_text().replace("good", "fine"))
    assert load_critic(str(file)).version != prompt.version


def test_the_gated_reward_of_two_criteria_is_missing_if_one_is_and_both_are_told(tmp_path: Path) -> None:
    replies = ['{"score": [25, 0]}', '{"score": [10, 25]}', '{"score": [10]}', "I cannot."]
    for reply, value in zip(replies, (0.6, 0.4, None, None), strict=True):
        with judge_at(template(tmp_path), [says(reply)], formula=CME) as (judge, bodies):
            (score,) = judge.score([REQUEST])
        assert score.value == (None if value is None else pytest.approx(value, abs=1e-15)) and len(bodies) == 1
        assert set(score.parts) == {"execution", "consistency"}
    assert score.reason == "execution: the answer holds no JSON object: 'I cannot.'"


def test_criteria_differ_by_task_and_those_that_are_left_out_are_not_missing(tmp_path: Path) -> None:
    model = Scripted(lambda ask: writes("Score: 4.0" if "Natural?" in ask.parts else '{"score": [5, 20]}')(ask))
    own = {"criteria": {"execution": 1, "natural": 1}, "criteria_by_task": {"style": {"natural": 2}}}
    judge = assemble(settings(template(tmp_path), **own), load_critic(template(tmp_path)), model)
    styled = replace(REQUEST, sample=replace(REQUEST.sample, task="style"))
    usual, style = judge.score([REQUEST, styled])
    assert usual.value == pytest.approx((0.2 + 1.0) / 2) and style.value == 1.0
    assert len(model.asked) == 3
    assert style.parts["execution"].value is None and style.parts["execution"].reason is None
    assert set(usual.parts) == set(style.parts) == {"execution", "natural"}


def test_the_gate_differs_by_task(tmp_path: Path) -> None:
    model = Scripted(lambda ask: writes("Score: 2.5" if "Natural?" in ask.parts else '{"score": [5, 20]}')(ask))
    by_task = {"style": {"execution": 1}, "add": "execution * (0.1 + 0.9 * consistency)", "extract": "natural ** 2"}
    judge = assemble(
        settings(template(tmp_path), formula=CME, criteria_by_task=by_task), load_critic(template(tmp_path)), model
    )
    tasks = {"text": 0.2 * (0.6 + 0.4 * 0.8), "style": 0.2, "add": 0.2 * (0.1 + 0.9 * 0.8), "extract": 0.25}
    scores = judge.score([replace(REQUEST, sample=replace(REQUEST.sample, task=task)) for task in tasks])
    assert [score.value for score in scores] == pytest.approx([*tasks.values()])
    told = [{name for name, part in score.parts.items() if part.value is not None} for score in scores]
    assert told == [{"execution", "consistency"}, {"execution"}, {"execution", "consistency"}, {"natural"}]
    assert {*scores[0].parts} == {"execution", "consistency", "natural"}


def test_a_formula_for_one_task_lies_beside_the_mean_for_the_others(tmp_path: Path) -> None:
    model = Scripted(writes("Score: 2.5"))
    own = {"criteria": {"natural": 2}, "criteria_by_task": {"style": "0.5 * natural"}}
    asked = settings(template(tmp_path), **own)
    judge = assemble(asked, load_critic(template(tmp_path)), model)
    styled = replace(REQUEST, sample=replace(REQUEST.sample, task="style"))
    assert [score.value for score in judge.score([REQUEST, styled])] == [0.5, 0.25]
    assert "criteria_by_task={'style': '0.5 * natural'}" in (asked.own_settings or "")
    assert JudgeConfig.model_validate(asked.model_dump(mode="json")) == asked


def test_references_are_shown_where_the_message_says(tmp_path: Path) -> None:
    message = [{"image": "references"}, "Source:", {"image": "source"}, {"image": "edit"}]
    file = template(tmp_path, questions=[{**WORDS["questions"][0], "message": message}])
    question = load_critic(file).criteria["execution"]
    several = replace(REQUEST, sample=replace(REQUEST.sample, references=(HAT, EDIT)))
    assert [*question.parts(several)] == [HAT, EDIT, "Source:", SOURCE, EDIT]
    assert [*question.parts(REQUEST)] == ["Source:", SOURCE, EDIT]


def test_score_tokens_of_a_template_are_asked_for_by_their_ids(tmp_path: Path) -> None:
    question = {"message": [{"image": "edit"}, "Good?"], "answers": {"good": {"tokens": ["no", "yes"]}}}
    with FaultServer() as server:
        asked = settings(template(tmp_path, questions=[question], temperature=0.7), criteria={"good": 1},
                         endpoints=(server.url,), model="critic")  # fmt: skip
        judge = assemble(asked, open_words(asked), OpenAIModel(asked))
        try:
            (score,) = judge.score([REQUEST])
        finally:
            close(judge)
        (body,) = server.bodies
    assert len(body["logprob_token_ids"]) == 2 and (body["max_tokens"], body["temperature"]) == (1, 0.0)
    assert score.probs is not None and score.value == pytest.approx(score.probs[1]) and score.bound == 0


def test_sampled_answers_are_averaged_and_each_has_a_seed_of_its_own(tmp_path: Path) -> None:
    model = Scripted(writes('{"score": [5, 5]}'))
    for temperature, count in ((0.0, 1), (0.5, 3)):
        model.asked.clear()
        file = template(tmp_path, temperature=temperature, max_tokens=9)
        own = settings(file, criteria={"execution": 1}, samples=3)
        (score,) = assemble(own, load_critic(file), model).score([REQUEST])
        assert score.value == pytest.approx(0.2) and len({ask.seed for ask in model.asked}) == count
        assert {(ask.temperature, ask.max_tokens) for ask in model.asked} == {(temperature, 9)}


def test_a_model_in_this_process_reads_the_same_message_and_the_system(tmp_path: Path) -> None:
    build_tiny_judge(tmp_path / "judge")
    asked = settings(template(tmp_path), path=str(tmp_path / "judge"), criteria={"execution": 1})
    judge = open_judge(asked)
    assert isinstance(judge, CriticJudge) and isinstance(judge.model, TransformersModel)
    (ask,) = judge.asks(REQUEST)
    (answer,) = judge.model.answer([replace(ask, max_tokens=2)])
    (bare,) = judge.model.answer([replace(ask, max_tokens=2, system="")])
    assert answer.prompt_tokens > bare.prompt_tokens
    (score,) = judge.score([REQUEST])
    assert score.value is None and "no JSON object" in (score.reason or "")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"questions": []}, "questions"),
        ({"questions": [{"message": ["x"], "answers": {"a": {"json": "s", "min": 0, "max": 1}}}]}, "does not show the"),
        ({"questions": [{**WORDS["questions"][1], "answers": {}}]}, "answers"),
        ({"questions": [WORDS["questions"][1]] * 2}, "the criterion 'natural' is there twice"),
        ({"questions": [{**WORDS["questions"][0], "message": [{"image": "edit"}, "{who}"]}]}, r"\{who\} is not filled"),
        ({"questions": [{**WORDS["questions"][0], "message": [{"image": "edit"}, "{"]}]}, "questions.0.message"),
        ({"questions": [{**WORDS["questions"][0], "message": [{"image": "mask"}]}]}, "questions.0.message.0"),
        ({"questions": [{"message": [{"image": "edit"}], "answers": {"a": TWO, "b": TWO}}]}, "tokens are the whole"),
        ({"temperature": 3}, "temperature"),
        ({"opening": "x"}, "opening"),
    ],
)  # fmt: skip
def test_a_broken_template_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load_critic(template(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("own", "problem"),
    [
        ({"criteria": {"overall": 1}}, "criteria: the template critic-1-.* has no 'overall'; it has execution, cons"),
        ({"formula": "execution * kept"}, "formula: the template critic-1-.* has no 'kept'"),
        ({"criteria_by_task": {"style": {"x": 1}}, "criteria": {"natural": 1}}, "criteria_by_task: .* has no 'x'"),
        ({"criteria_by_task": {"style": "natural * x"}, "formula": CME}, "criteria_by_task: .* has no 'x'"),
        ({"method": "score_logit"}, 'set judge.method to "template"'),
        ({"template": "full"}, 'judge.method "template" needs a file of yours'),
    ],
)
def test_a_judge_that_does_not_fit_its_template_is_refused(tmp_path: Path, own: dict[str, Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        open_words(settings(template(tmp_path), **own))


def test_the_check_before_a_run_tells_an_answer_that_no_rule_fits(tmp_path: Path) -> None:
    for reply, faults in (('{"score": [5, 5]}', 0), ("What a picture!", 1)):
        with service([says(reply)]) as (url, _):
            own = settings(
                template(tmp_path), endpoints=(url.replace("/score", "/v1"),), model="m", criteria={"execution": 1}
            )
            found = check_judge(own, [REQUEST])
        assert len(found) == faults
    assert "the answer holds no JSON object: 'What a picture!'" in found[0]


def test_the_shipped_templates_know_execution_and_consistency() -> None:
    for name in ("full", "brief"):
        own = JudgeConfig.model_validate({"path": "nowhere", "template": name, "formula": CME})
        assert own.asked == ("execution", "consistency") and open_words(own) is not None


def test_the_commands_show_its_words_and_measure_its_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    template(tmp_path)
    for name, image in (("before.png", SOURCE), ("after.png", EDIT), ("other.png", HAT)):
        image.save(name)
    pair = {"source": "before.png", "instruction": "x", "edit_a": "after.png", "edit_b": "other.png", "preference": "a"}
    (tmp_path / "votes.jsonl").write_text(json.dumps(pair))
    with service([says('{"score": [20, 5]}')]) as (url, _):
        judge = {"endpoints": [url.replace("/score", "/v1")], "model": "m", "formula": CME}
        judge |= {"method": "template", "template": "critic.yaml"}
        (tmp_path / "own.yaml").write_text(yaml.safe_dump({"editor": {}, "judge": judge}))
        scored = CliRunner().invoke(app, ["judge", "score", "before.png", "after.png", "Red.", "--judge", "own.yaml"])
        assert scored.exit_code == 0, scored.output
        arguments = ["votes.jsonl", "--judge", "own.yaml", "--out", "agreement", "--json"]
        agreed = CliRunner().invoke(app, ["judge", "agree", *arguments])
        other = CliRunner().invoke(app, ["judge", "agree", "votes.jsonl", "--judge", "own.yaml", "--methods", "yes_no"])
    assert f"{0.8 * (0.6 + 0.4 * 0.2):.4f}" in scored.output and "execution: 0.8" in scored.output
    assert " You judge. " in scored.output and "Before [Red.]" in scored.output and CME in scored.output
    assert agreed.exit_code == 0 and [*json.loads(agreed.stdout)["methods"]] == ["template"]
    assert other.exit_code == 2 and "there are template, and all" in " ".join(other.output.split())


PAGE = "docs/howto/critics.md"
PUBLISHED = {name: block.text for block in blocks(PAGE) if block.language == "text" and (name := name_of(block.text))}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_templates_of_the_documents_are_templates_and_their_settings_name_their_criteria(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text(PUBLISHED[name], encoding="utf-8")
    prompt = load_critic(str(tmp_path / name))
    shown = [yaml.safe_load(block.text)["judge"] for block in blocks(PAGE) if block.language == "yaml"]
    (own,) = [each for each in shown if each is not None and each["template"] == name]
    asked = JudgeConfig.model_validate({**own, "template": str(tmp_path / name)})
    assert open_words(asked) is not None and {*asked.asked} <= {*prompt.criteria}


@pytest.mark.parametrize(
    ("name", "answer", "values"),
    [
        ("firm.yaml", '{\n"reasoning" : "Done.",\n"score" : [4]\n}', {"execution": 0.75, "consistency": 0.75}),
        ("spatial.yaml", '{"edit_region": [{"id": 0, "bbox_2d": [1, 2, 3, 4]}], "score": [20, 5]}',
         {"done": 0.8, "kept": 0.2, "natural": 0.8, "clean": 0.2}),
        ("unified.yaml", '{\n\n"reasoning" : "...",\n"score" : [20, 5],\n}',
         {"done": 0.8, "kept": 0.2, "natural": 0.8, "clean": 0.2}),
        ("rational.yaml", "# Detailed Judgement\n1. Text Faithfulness:\n## Justification: x\n## Score: 4.0\n"
         "2. Image Faithfulness:\n## Justification: y\n## Score: 2.5\n3. Physical and Visual Quality:\n"
         "## Justification: z\n## Score: 1\n4. Text Rendering:\n## Justification: none\n## Score: N/A\n# Summary: s",
         {"done": 1.0, "kept": 0.5, "quality": 0.0, "text": None}),
    ],
)  # fmt: skip
def test_the_rules_of_the_documents_read_answers_in_the_published_form(
    tmp_path: Path, name: str, answer: str, values: dict[str, float | None]
) -> None:
    (tmp_path / name).write_text(PUBLISHED[name], encoding="utf-8")
    criteria = load_critic(str(tmp_path / name)).criteria
    assert {own: criteria[own].answers[own].read(Answer(answer)).value for own in criteria} == values
