"""From a config to the objects it names: editor, judge, dataset, trainer."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

import torch
import yaml
from pydantic import ValidationError

from editr1.config import Config, DataConfig, JudgeConfig, RewardConfig, load_config
from editr1.data import EditDataset, JsonlDataset
from editr1.editors.editor import Editor
from editr1.editors.memory import apply_memory
from editr1.errors import UserError, first_problem
from editr1.judges.base import MLLM, Judge
from editr1.judges.methods import METHODS
from editr1.judges.mllm import MLLMJudge
from editr1.judges.prompts import load_prompt
from editr1.judges.scoring import score_token_ids
from editr1.judges.transformers_backend import TransformersModel
from editr1.trainer import Trainer

TOY_PIXELS = 64 * 64  # the only area that a toy editor knows


def build_trainer(config: Config) -> Trainer:
    """Load all that a run needs; the trainer's `editor`, `judge` and `dataset` are there for evaluation too.

    Raises:
        UserError: something that the config names is not there or does not fit.
    """
    return Trainer(config, load_editor(config), load_judge(config), load_dataset(config.data))


def load_editor(config: Config) -> Editor:
    """The editor that a config names, fitted on the machine as its `memory` says."""
    settings, memory = config.editor, config.memory
    editor = Editor.load(
        locate(settings.path),
        dtype=getattr(torch, settings.dtype),
        device=pick_device(settings.device),
        guidance=settings.guidance,
        pixels=settings.pixels,
        text_tokens=settings.text_tokens,
        quantize=memory.quantize,
        offload=memory.offload,
    )
    apply_memory(editor, memory)
    return editor


def load_judge(config: Config) -> Judge:
    """The judge that a config names, on the editor's device and in its number format; mixed with its `rewards`."""
    device, dtype = pick_device(config.editor.device), getattr(torch, config.editor.dtype)
    judge = build_judge(config.judge, device, dtype)
    if not config.rewards:
        return judge
    from editr1.judges.rewards.mixed import MixedJudge

    others = {name: (build_reward(reward, device, dtype), reward.weight) for name, reward in config.rewards.items()}
    return MixedJudge({"judge": (judge, config.judge.weight), **others})


def build_judge(settings: JudgeConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Judge:
    """One multimodal judge; judges that share a folder or servers share the model.

    Raises:
        UserError: there is no such model, template or criterion, or the model cannot give the scale's numbers.
    """
    model = build_model(settings, device, dtype)
    prompt = load_prompt(settings.template, settings.order)
    if settings.method == "ranking":
        from editr1.judges.rewards.ranking import RankingJudge

        return RankingJudge(model)
    choices = METHODS[settings.method].choices(settings.scale)
    if isinstance(model, TransformersModel):  # a server is asked when it is there
        score_token_ids(model.processor.tokenizer, choices)
    for criterion in settings.criteria:
        if criterion not in prompt.template.criteria:
            known = ", ".join(prompt.template.criteria)
            raise UserError(f"judge.criteria: the template {prompt.name} has no {criterion!r}; it has {known}")
    return MLLMJudge(
        model,
        prompt,
        method=settings.method,
        scale=settings.scale,
        criteria=settings.criteria,
        samples=settings.samples,
    )


def build_model(settings: JudgeConfig, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> MLLM:
    """The multimodal model that a judge asks; equal folders share it.

    Raises:
        UserError: there is no such model.
    """
    if not settings.endpoints:
        return _local_model(str(locate(str(settings.path))), settings.batch_size, device, dtype)
    from editr1.judges.openai_backend import OpenAIModel

    return OpenAIModel(
        settings.endpoints,
        str(settings.model),
        api_key_env=settings.api_key_env,
        in_flight=settings.in_flight,
        timeout=settings.timeout,
        tries=settings.tries,
        jpeg_quality=settings.jpeg_quality,
    )


@lru_cache(maxsize=4)
def _local_model(path: str, batch_size: int, device: torch.device | str, dtype: torch.dtype) -> TransformersModel:
    return TransformersModel(path, batch_size=batch_size, device=device, dtype=dtype)


def build_reward(settings: RewardConfig, device: torch.device | str, dtype: torch.dtype) -> Judge:
    """One more reward."""
    from editr1.judges.rewards.clip import ClipReward
    from editr1.judges.rewards.editscore import EditScoreReward, load_editscore
    from editr1.judges.rewards.function import FunctionReward
    from editr1.judges.rewards.http import HttpReward
    from editr1.judges.rewards.ocr import OcrReward
    from editr1.judges.rewards.preservation import PreservationReward

    if settings.judge is not None:
        return build_judge(settings.judge, device, dtype)
    path = settings.path or ""
    made: dict[str, Callable[[], Judge]] = {
        "preservation": PreservationReward,
        "ocr": OcrReward,
        "clip_image": lambda: ClipReward(path, kind="image", device=device, dtype=dtype),
        "clip_direction": lambda: ClipReward(path, kind="direction", device=device, dtype=dtype),
        "function": lambda: FunctionReward(path),
        "http": lambda: HttpReward(path),
        "editscore": lambda: EditScoreReward(load_editscore(Path(path), settings.lora)),
    }
    return made[settings.kind]()


def judge_settings(text: str) -> JudgeConfig:
    """What `--judge` names: "toy", a model's folder, a YAML file, or "openai:URL?model=NAME".

    A YAML file holds the settings of a judge, or a run's config with a `judge`. After a "?" come any settings of the
    judge: "toy?method=yes_no", "openai:http://127.0.0.1:8000/v1?model=qwen&order=prefix".

    Raises:
        UserError: it names nothing, or a setting is wrong.
    """
    name, _, query = text.partition("?")
    settings = {key: yaml.safe_load(value) for key, value in parse_qsl(query)}
    if name == "toy":
        settings = {**load_config("toy").judge.model_dump(exclude_defaults=True), **settings}
    elif name.startswith("openai:"):
        settings["endpoints"] = name.removeprefix("openai:").split(",")
    elif Path(name).suffix in (".yaml", ".yml"):
        try:
            tree = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise UserError(f"--judge {name}: cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(tree, dict):
            raise UserError(f"--judge {name}: holds no settings such as `path: FOLDER`")
        settings = {**tree.get("judge", tree), **settings}
    else:
        settings["path"] = name
    try:
        return JudgeConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError(f"--judge {name}: {first_problem(error)}") from error


def load_dataset(settings: DataConfig) -> EditDataset:
    """The dataset that a config names."""
    if settings.kind == "jsonl" and settings.path is not None:
        return JsonlDataset(settings.path)
    from editr1.toy.world import ToyDataset

    return ToyDataset(settings.split, settings.size, settings.seed, settings.level)


def locate(path: str) -> str | Path:
    """A path or hub name as it is; "toy:NAME" as the folder of what is shipped under that name."""
    if not path.startswith("toy:"):
        return path
    from editr1.toy.assets import toy_path

    return toy_path(path.removeprefix("toy:"))


def pick_device(name: str) -> torch.device:
    """A device by name; "auto" is a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    found = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(found if name == "auto" else name)
    except RuntimeError as error:
        raise UserError(f"editor.device={name!r} is no device; use auto, cpu or cuda") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"editor.device={name!r}: there is no GPU here; use auto or cpu")
    return device


def stock_editor(
    name: str,
    lora: Path | None = None,
    *,
    guidance: float | None = None,
    pixels: int | None = None,
    device: torch.device | None = None,
) -> Editor:
    """An editor as it is shipped, with a trained LoRA where one is named, for making edits.

    Args:
        name: folder, hub name, "toy:NAME", or the YAML of a run, whose `editor` and `memory` are taken.
        lora: what was trained.
        guidance: its scale; None for the editor's own.
        pixels: area of an edit; None for the editor's own.
        device: where it runs; None for a GPU where there is one.

    Raises:
        UserError: there is no such editor or LoRA.
    """
    from editr1.editors.lora_format import find_file, load_lora_into

    file = None if lora is None else find_file(lora)  # before the editor, which may take minutes to load
    if Path(name).suffix in (".yaml", ".yml"):
        given = {"editor.guidance": guidance, "editor.pixels": pixels, "editor.device": device}
        overrides = [f"{key}={value}" for key, value in given.items() if value is not None]
        loaded = load_editor(load_config(name, [*overrides, "memory.gradient_checkpointing=false"]))
    else:
        place = device or pick_device("auto")
        dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
        area = TOY_PIXELS if pixels is None and name.startswith("toy:") else pixels
        loaded = Editor.load(locate(name), dtype=dtype, device=place, guidance=guidance, pixels=area)
    if file is not None:
        load_lora_into(loaded.pipe, file)
    return loaded
