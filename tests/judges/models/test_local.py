"""The in-process judge on a tiny random Qwen2.5-VL, against the model called by hand, one request at a time."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoProcessor, Qwen2_5_VLForConditionalGeneration

from editr1.config.rewards import MethodName
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import Ask, JudgeRequest
from editr1.judges.mllm import MLLMJudge
from editr1.judges.models.local import TransformersModel, chat
from editr1.judges.prompts import Question, load_prompt
from tests.judges.tiny_judge import build_tiny_judge

PROMPT = load_prompt("brief", "prefix")
TOLERANCE = 1e-6
NO, YES = (["no", "No", "NO", "Ġno", "ĠNo", "ĠNO"], ["yes", "Yes", "YES", "Ġyes", "ĠYes", "ĠYES"])
"""Spellings as they are in the vocabulary, where a space is Ġ; the tiny tokenizer has two of each."""


def _image(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)


REQUESTS = [
    JudgeRequest(EditSample("", _image(0), "remove the cat"), _image(1)),
    JudgeRequest(EditSample("", _image(0), "remove the cat"), _image(2)),
    JudgeRequest(
        EditSample("", _image(3), "make the dog bigger, and then add a red cat to the left of it", "A red cat."),
        _image(4, (112, 56)),
    ),
    JudgeRequest(EditSample("", _image(5).convert("L"), "add a dog", "A dog."), _image(6).convert("RGBA")),
    JudgeRequest(EditSample("", _image(7, (56, 84)), "make the cat blue"), _image(9, (56, 84))),
]


@pytest.fixture(scope="module")
def judge_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_judge(tmp_path_factory.mktemp("tiny") / "judge")


def judge_at(path: Path, method: MethodName = "score_logit", batch_size: int = 16, **settings: Any) -> MLLMJudge:
    return MLLMJudge(TransformersModel(path, batch_size=batch_size, **settings), PROMPT, method=method)


def model_of(judge: MLLMJudge) -> TransformersModel:
    assert isinstance(judge.model, TransformersModel)
    return judge.model


def _by_hand(path: Path, request: JudgeRequest, answers: list[list[str]], question: Question) -> float:
    """The expected answer from the logits of every position, unpadded, with the softmax in numpy.

    `answers` holds the entries of the vocabulary that count as each answer, if they are there.
    """
    processor = AutoProcessor.from_pretrained(path)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path)
    first, image1, second, image2, third = PROMPT.parts(request, question)
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    assert (image1, image2) == (request.sample.source, request.edit)
    asked = f"{first}{seen}{second}{seen}{third}"
    text = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n"
    images = [request.sample.source.convert("RGB"), request.edit.convert("RGB")]
    with torch.no_grad():
        logits = model(**processor(text=[text], images=images, return_tensors="pt")).logits[0, -1]
    weights, vocabulary = np.exp(logits.double().numpy()), processor.tokenizer.get_vocab()
    weights = np.array([sum(weights[vocabulary[name]] for name in names if name in vocabulary) for names in answers])
    return float(weights @ np.linspace(0, 1, len(answers)) / weights.sum())


@pytest.mark.parametrize(
    ("method", "answers", "question"),
    [("score_logit", [[digit] for digit in "012345"], "score"), ("yes_no", [NO, YES], "yes_no")],
)
def test_padded_batch_scores_as_the_model_called_by_hand(
    judge_path: Path, method: MethodName, answers: list[list[str]], question: Question
) -> None:
    scores = judge_at(judge_path, method).score(REQUESTS)
    expected = [_by_hand(judge_path, request, answers, question) for request in REQUESTS]
    assert [score.value for score in scores] == pytest.approx(expected, abs=TOLERANCE)
    assert min(abs(a - b) for i, a in enumerate(expected) for b in expected[:i]) > 100 * TOLERANCE  # order would show
    for score in scores:
        assert score.reason is None
        assert score.probs is not None
        assert sum(score.probs) == pytest.approx(1)
        assert np.dot(score.probs, np.linspace(0, 1, len(answers))) == pytest.approx(score.value)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_scores_do_not_depend_on_batch_size_or_neighbours(judge_path: Path, batch_size: int) -> None:
    together = [score.value for score in judge_at(judge_path, batch_size=16).score(REQUESTS)]
    judge = judge_at(judge_path, batch_size=batch_size)
    assert [score.value for score in judge.score(REQUESTS)] == pytest.approx(together, abs=TOLERANCE)
    assert [score.value for score in judge.score(REQUESTS[::-1])] == pytest.approx(together[::-1], abs=TOLERANCE)


def test_no_requests_give_no_scores(judge_path: Path) -> None:
    assert judge_at(judge_path).score([]) == []


def test_only_one_position_of_logits_is_computed(judge_path: Path) -> None:
    judge, shapes = judge_at(judge_path), []
    model_of(judge).model.register_forward_hook(lambda module, args, output: shapes.append(tuple(output.logits.shape)))
    judge.score(REQUESTS)
    assert [shape[:2] for shape in shapes] == [(len(REQUESTS), 1)]


def test_a_request_with_bad_logits_gets_a_reason_and_the_others_their_scores(judge_path: Path) -> None:
    judge = judge_at(judge_path)
    whole, model = judge.score(REQUESTS), model_of(judge)

    def spoil(module: torch.nn.Module, args: object, output: dict[str, torch.Tensor]) -> None:
        output["logits"][1, -1, model.token_id("3")] = torch.nan
        output["logits"][3, -1, model.token_id("0")] = torch.inf

    model.model.register_forward_hook(spoil)
    scores = judge.score(REQUESTS)
    assert [score.value is None for score in scores] == [False, True, False, True, False]
    assert scores[1].reason == scores[3].reason == "a logit of a score token is not finite"
    assert [scores[i] for i in (0, 2, 4)] == [whole[i] for i in (0, 2, 4)]


def test_half_precision_stays_near_the_full_one(judge_path: Path) -> None:
    whole = judge_at(judge_path).score(REQUESTS)
    half = judge_at(judge_path, dtype=torch.bfloat16).score(REQUESTS)
    assert [score.value for score in half] == pytest.approx([score.value for score in whole], abs=0.05)


def test_judge_names_itself_and_its_prompt(judge_path: Path) -> None:
    judge = judge_at(judge_path, "yes_no")
    assert judge.judge_id == "judge:yes_no:brief-1/prefix"
    assert {score.prompt for score in judge.score(REQUESTS)} == {"brief-1/prefix"}


def test_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no folder at .*nowhere"):
        TransformersModel(tmp_path / "nowhere")


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no processor in"):
        TransformersModel(tmp_path)


@pytest.fixture()
def copy(judge_path: Path, tmp_path: Path) -> Path:
    """The judge's folder, to be damaged."""
    return Path(shutil.copytree(judge_path, tmp_path / "copy"))


def test_folder_without_the_image_processor_is_refused(copy: Path) -> None:
    for name in ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match="processor"):
        TransformersModel(copy)


def test_processor_without_chat_template_is_refused(copy: Path) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        TransformersModel(copy)


def test_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no image-text-to-text model in"):
        TransformersModel(copy)


def test_pickled_weights_are_never_loaded(copy: Path) -> None:
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no image-text-to-text model in"):
        TransformersModel(copy)


def test_broken_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(UserError, match="no image-text-to-text model in"):
        TransformersModel(copy)


def test_missing_weights_are_refused_rather_than_random(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file({k: v for k, v in weights.items() if k != "lm_head.weight"}, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lack 'lm_head.weight'"):
        TransformersModel(copy)


def test_model_that_is_no_judge_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(
        json.dumps(config | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]})
    )
    with pytest.raises(UserError, match="no image-text-to-text model in"):
        TransformersModel(copy)


def generated_by_hand(path: Path, request: JudgeRequest, count: int) -> tuple[str, list[torch.Tensor]]:
    """Greedy text and the logits of each of its tokens, each from a whole forward pass without cache."""
    processor = AutoProcessor.from_pretrained(path)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(path)
    first, _, second, _, third = PROMPT.parts(request, "think")
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    text = f"<|im_start|>user\n{first}{seen}{second}{seen}{third}<|im_end|>\n<|im_start|>assistant\n"
    images = [request.sample.source.convert("RGB"), request.edit.convert("RGB")]
    said, logits = "", []
    for _ in range(count):
        with torch.no_grad():
            step = model(**processor(text=[text + said], images=images, return_tensors="pt")).logits[0, -1]
        logits.append(step)
        said += processor.tokenizer.decode([int(step.argmax())])
    return said, logits


def test_a_generated_answer_is_the_models_own_with_the_probabilities_at_each_token(judge_path: Path) -> None:
    model = TransformersModel(judge_path)
    asks = [Ask(PROMPT.parts(request, "think"), ("0", "3"), max_tokens=4) for request in REQUESTS[:3]]
    vocabulary = model.processor.tokenizer.get_vocab()
    for ask, answer, request in zip(asks, model.answer(asks), REQUESTS, strict=False):
        said, logits = generated_by_hand(judge_path, request, len(answer.positions))
        assert answer.reason is None and 1 <= len(answer.positions) <= 4
        assert "".join(position.token for position in answer.positions) == said
        for position, expected in zip(answer.positions, logits, strict=True):
            for choice in ask.choices:
                wanted = expected.log_softmax(0)[vocabulary[choice]].item()
                assert position.logprobs[choice] == pytest.approx(wanted, abs=1e-4)


def test_draws_follow_their_seed_alone_and_the_models_distribution(judge_path: Path) -> None:
    model = TransformersModel(judge_path, batch_size=64)
    parts = PROMPT.parts(REQUESTS[0])
    asks = [Ask(parts, temperature=1.0, seed=seed) for seed in range(256)]
    drawn = [answer.positions[0].token for answer in model.answer(asks)]
    assert [answer.positions[0].token for answer in model.answer(asks[100:103])] == drawn[100:103]
    likeliest = max(set(drawn), key=drawn.count)
    inputs = model.processor(
        text=model.processor.apply_chat_template(
            [chat(asks[0])],
            add_generation_prompt=True, tokenize=False,
        ),
        images=[REQUESTS[0].sample.source, REQUESTS[0].edit], return_tensors="pt",
    )  # fmt: skip
    with torch.no_grad():
        probs = model.model(**inputs).logits[0, -1].softmax(0).tolist()
    p = sum(prob for index, prob in enumerate(probs) if model.token_text(index) == likeliest)
    assert drawn.count(likeliest) / 256 == pytest.approx(p, abs=4 * (p * (1 - p) / 256) ** 0.5 + 1e-3)


def test_top_lists_the_likeliest_tokens_beside_the_choices(judge_path: Path) -> None:
    model = TransformersModel(judge_path)
    (answer,) = model.answer_top([Ask(PROMPT.parts(REQUESTS[0]), ("0",))], top=5)
    (position,) = answer.positions
    values = sorted(position.logprobs.values(), reverse=True)
    assert len(position.logprobs) in (5, 6) and values[0] == position.logprobs[position.token]
    assert answer.prompt_tokens > 0 and answer.completion_tokens == 1


def test_a_scale_that_the_tokenizer_cannot_write_in_one_token_is_refused(judge_path: Path) -> None:
    with pytest.raises(UserError, match=r"'10' as .*not as one token"):
        TransformersModel(judge_path).answer([Ask(PROMPT.parts(REQUESTS[0]), ("9", "10"))])
