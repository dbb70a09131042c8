"""From settings to judges."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

import torch
from pydantic import ValidationError
from transformers import PreTrainedTokenizerBase

from editr1.config.rewards import (
    ClipConfig,
    EditScoreConfig,
    FunctionConfig,
    HttpConfig,
    JudgeConfig,
    JudgeRewardConfig,
    MeasuredConfig,
    OcrConfig,
    PreservationConfig,
    ProductConfig,
    mixed_of,
    products_of,
)
from editr1.config.settings import Config
from editr1.config.yaml_text import parse_yaml, read_yaml
from editr1.devices import pick_device, pick_dtype
from editr1.errors import UserError, first_problem
from editr1.judges.assembly import Words, assemble, choices_of, open_words
from editr1.judges.base import MLLM, Ask, Judge
from editr1.judges.models.local import TransformersModel, load_processor
from editr1.judges.models.remote import OpenAIModel
from editr1.judges.models.tokens import choice_token_ids
from editr1.judges.rewards.clip import ClipReward
from editr1.judges.rewards.editscore import EditScoreReward, load_editscore
from editr1.judges.rewards.function import open_own_judge
from editr1.judges.rewards.http import HttpReward
from editr1.judges.rewards.mixed import MixedJudge
from editr1.judges.rewards.ocr import OcrReward
from editr1.judges.rewards.outside import OutsideReward
from editr1.judges.rewards.preservation import PreservationReward
from editr1.toy.assets import locate


def open_config_judge(config: Config) -> Judge:
    """The judge of a config, on the editor's device and in its number format, mixed with its `rewards`, if any."""
    device = pick_device(config.editor.device)
    dtype = pick_dtype(config.editor.dtype, device)
    if config.judge is not None and not config.rewards:
        return open_judge(config.judge, device, dtype)
    mixed, products = mixed_of(config.judge, config.rewards), products_of(config.judge, config.rewards)
    parts = {"judge": (open_judge(config.judge, device, dtype), config.judge.weight)} if config.judge else {}
    for name, reward in config.rewards.items():
        if not isinstance(reward, ProductConfig):
            parts[name] = (open_reward(reward, device, dtype), reward.weight)
    return MixedJudge(
        parts,
        config.optional_rewards,
        by_task={name: own.weight_by_task for name, own in mixed.items() if own.weight_by_task},
        products={name: (formula, mixed[name].weight) for name, formula in products.items()},
        missing={name: own.missing for name, own in config.rewards.items() if isinstance(own, ProductConfig)},
    )


def open_watch(config: Config) -> Judge:
    """The second judge of a config, where and as `open_config_judge` opens the first."""
    assert config.watch is not None, "the caller has looked"
    device = pick_device(config.editor.device)
    return open_judge(config.watch.judge, device, pick_dtype(config.editor.dtype, device))


def open_judge(settings: JudgeConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Judge:
    """One multimodal judge; judges of the same folder share the model.

    Raises:
        UserError: There is no such model, template or criterion, or the model cannot give the scale's numbers.
    """
    words = open_words(settings)
    model = open_model(settings, device, dtype)
    if isinstance(model, TransformersModel):  # a server may not run yet
        check_tokenizer(settings, words, model.processor.tokenizer)
    return assemble(settings, words, model)


def check_processor(settings: JudgeConfig) -> None:
    """Refuse a model in this process whose processor or tokenizer does not do; its weights are not loaded."""
    if not settings.endpoints:
        words, processor = open_words(settings), load_processor(Path(locate(str(settings.path))))
        check_tokenizer(settings, words, processor.tokenizer)


def check_tokenizer(settings: JudgeConfig, words: Words, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that has no single token for an answer whose probability is read."""
    for choices, any_spelling in choices_of(settings, words):
        choice_token_ids(tokenizer, Ask((), choices=choices, any_spelling=any_spelling))


def open_model(settings: JudgeConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> MLLM:
    """The multimodal model of a judge; judges of the same folder share it."""
    if settings.endpoints:
        return OpenAIModel(settings)
    return _local_model(str(locate(str(settings.path))), settings.batch_size, device, dtype)


@lru_cache(maxsize=4)
def _local_model(path: str, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> TransformersModel:
    return TransformersModel(path, batch_size=batch_size, device=device, dtype=dtype)


def open_reward(settings: MeasuredConfig, device: torch.device | str, dtype: torch.dtype) -> Judge:
    """One more reward."""
    match settings:
        case JudgeRewardConfig():
            return open_judge(settings.judge, device, dtype)
        case ClipConfig():
            return ClipReward(settings.path, kind=settings.kind, device=device, dtype=dtype)
        case PreservationConfig():
            masks = settings.masks
            return PreservationReward() if masks == "edit" else OutsideReward(masks, settings.whole_tasks)
        case OcrConfig():
            return OcrReward()
        case FunctionConfig():
            return open_own_judge(settings.path)
        case HttpConfig():
            return HttpReward(settings.path)
        case EditScoreConfig():
            return EditScoreReward(load_editscore(Path(settings.path), settings.lora))


def parse_judge(text: str, option: str = "--judge") -> JudgeConfig:
    """The settings that `--judge` names: "toy", a model's folder or hub name, a YAML file, or "openai:URL?model=NAME".

    Messages call it `option`. A YAML file holds the settings of a judge, or a run's config with a `judge`. Settings of
    the judge may follow a "?": "toy?method=yes_no", "openai:http://127.0.0.1:8000/v1?model=qwen&order=prefix".
    """
    name, _, query = text.partition("?")
    settings = {key: parse_yaml(value, f"{option} {text}") for key, value in parse_qsl(query.replace("+", "%2B"))}
    if name.startswith("openai:"):
        settings["endpoints"] = name.removeprefix("openai:").split(",")
    elif Path(name).suffix in (".yaml", ".yml"):
        tree = read_yaml(Path(name), f"{option} {name}")
        own = tree.get("judge", None if "editor" in tree else tree) if isinstance(tree, dict) else None
        if not isinstance(own, dict):
            raise UserError(f"{option} {name}: holds no settings of a judge, such as `path: FOLDER`")
        settings = {**own, **settings}
    else:
        settings["path"] = name
    try:
        return JudgeConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"{option} {name}: {first_problem(error)}") from error
