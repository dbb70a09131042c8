"""Whether a judge and further rewards work, before a run: servers are asked once, no weights are loaded.

Of a judge in this process only the files are looked at: its processor needs transformers, which takes seconds to
import (`open.check_processor`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from importlib.util import find_spec
from pathlib import Path

from editr1.config.own_code import raised
from editr1.config.rewards import (
    ClipConfig,
    EditScoreConfig,
    FunctionConfig,
    HttpConfig,
    JudgeConfig,
    JudgeRewardConfig,
    OcrConfig,
    RewardConfig,
)
from editr1.errors import NOT_JSON, UserError, collect, first_line
from editr1.judges.assembly import Words, assemble, open_words
from editr1.judges.base import Judge, JudgeRequest, close, scores_of
from editr1.judges.criteria import CriteriaJudge
from editr1.judges.models.remote import OpenAIModel
from editr1.judges.rewards.editscore import backbone_of
from editr1.judges.rewards.function import FunctionReward, open_own_judge
from editr1.judges.rewards.http import HttpReward
from editr1.model_files import check_files, check_hub, is_hub_name, parameters
from editr1.toy.assets import locate

TRIES = 2  # the second is for a server that is busy
THREADS = 16
PARTS = {
    ("config.json",): "copy all files of the model there",
    ("processor_config.json", "preprocessor_config.json"): "save the model's processor there",
    ("tokenizer*", "vocab*", "*.model", "tekken.json"): "save the model's processor there, with its tokenizer",
}
"""Files of a judge's folder, one of each, and how to get them."""
JSON_FILES = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)


def check_judge(settings: JudgeConfig, requests: Sequence[JudgeRequest]) -> list[str]:
    """What is wrong with a judge, one line each.

    A model in this process must have its files. Every server is asked one question, as in training: log-probabilities
    must be there if the method reads them.

    Args:
        settings: The judge.
        requests: Edits to ask about; ranking asks about two, any other method about the first.
    """
    try:
        words = open_words(settings)
        if not settings.endpoints:
            _check_model(locate(str(settings.path)))
            return []
    except UserError as error:
        return [str(error)]
    faults: list[str] = []
    judges: dict[str, Judge] = {}
    for url in settings.endpoints:
        with collect(faults):
            judges[url] = _judge_at(url, settings, words)
    with ThreadPoolExecutor(THREADS, "judge-check") as pool, ExitStack() as stack:
        for judge in judges.values():
            stack.callback(close, judge)  # before the pool waits for its threads: one may be interrupted
        reasons = pool.map(lambda judge: _unanswered(judge, requests), judges.values())
        told = zip(judges, reasons, strict=True)
        faults += [f"{reason}; mend the server {url}, or judge.endpoints" for url, reason in told if reason is not None]
    return faults


def check_reward(settings: RewardConfig, requests: Sequence[JudgeRequest]) -> list[str]:
    """What is wrong with one more reward, one line each; functions and services are called once."""
    match settings:
        case JudgeRewardConfig():
            return check_judge(settings.judge, requests)
        case FunctionConfig():
            return [*_call(settings.path, requests)]
        case HttpConfig():
            return [*_post(settings.path, requests, settings.optional)]
        case ClipConfig():
            with collect(faults := list[str]()):
                check_files(Path(settings.path))
            return faults
        case EditScoreConfig():
            return [*_check_editscore(settings)]
        case OcrConfig() if find_spec("rapidocr_onnxruntime") is None:
            return ["kind ocr needs rapidocr-onnxruntime: pip install 'editr1[ocr]'"]
    return []


def _check_model(path: str | Path) -> None:
    """A UserError if the hub does not know the model, or its folder cannot be whole."""
    if is_hub_name(str(path)):
        check_hub(str(path), "config.json", f"judge.path={str(path)!r}")
        return
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"judge: no folder at {folder}: give the folder of a model saved with save_pretrained")
    for names, what in PARTS.items():
        if not any(any(folder.glob(name)) for name in names):
            raise UserError(f"judge: {folder} has no {' or '.join(names)}: {what}")
    for name in JSON_FILES:
        _check_json(folder / name)
    parameters(folder)


def _check_json(file: Path) -> None:
    try:
        json.loads(file.read_text(encoding="utf-8") if file.is_file() else "{}")
    except (OSError, *NOT_JSON) as error:
        raise UserError(f"judge: {file} is broken ({first_line(error)}): copy the file again") from error


def _judge_at(url: str, settings: JudgeConfig, words: Words) -> Judge:
    """The judge at one of its servers alone, which is not asked often."""
    one = settings.model_copy(update={"endpoints": (url,), "tries": TRIES, "samples": 1})
    return assemble(one, words, OpenAIModel(one))


def _unanswered(judge: Judge, requests: Sequence[JudgeRequest]) -> str | None:
    """Why a judge gives no score; a sampled answer that is there but unclear is none of its faults."""
    if not isinstance(judge, CriteriaJudge):
        reasons = [score.reason for score in judge.score(requests[:2])]
    elif judge.sampled:
        reasons = [answer.reason for answer in judge.model.answer(judge.asks(requests[0]))]
    else:
        reasons = [score.reason for score in judge.score(requests[:1])]
    return next((reason for reason in reasons if reason is not None), None)


def _call(name: str, requests: Sequence[JudgeRequest]) -> Iterator[str]:
    """What a user's function raises on the first edit."""
    try:
        own = open_own_judge(name)
        if isinstance(own, FunctionReward):
            own.read(own.call(requests[0]))
        else:
            scores_of(own, requests[:1], f"the reward {name}")
    except UserError as error:
        yield str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a user's function raises is told, sys.exit() too
        yield f"the function {name} {raised(error)}; mend it"


def _post(url: str, requests: Sequence[JudgeRequest], optional: bool) -> Iterator[str]:
    """Why a service gives no score to any of the edits; one that may be missing is asked for nothing more."""
    try:
        with closing(HttpReward(url, tries=TRIES)) as reward:
            scores = reward.score(requests)
    except UserError as error:
        yield str(error)
        return
    if not optional and all(score.value is None and score.applies for score in scores):
        yield f"{scores[0].reason}; mend the service, or set optional: true if edits may lack this reward"


def _check_editscore(settings: EditScoreConfig) -> Iterator[str]:
    base, faults = Path(settings.path), list[str]()
    with collect(faults):
        check_files(base)
    if (base / "config.json").is_file():
        with collect(faults):
            backbone_of(base)
    yield from faults
    if settings.lora is not None and not Path(settings.lora).is_dir():
        yield f"no folder at {settings.lora}: give the folder of EditScore's LoRA"
    if find_spec("editscore") is None:
        yield "kind editscore needs its package: pip install editscore"
