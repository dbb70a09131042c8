"""Pipes, devices, folders and links in place of files, LoRAs that lie, odd files of models, odd places to write."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from editr1.config.rewards import JudgeConfig
from editr1.config.settings import EditorConfig
from editr1.editors.check import check_editor
from editr1.editors.lora.files import load_lora_into
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.judges.base import Ask
from editr1.judges.check import check_judge
from editr1.judges.models.local import TransformersModel
from editr1.judges.open import check_processor
from editr1.toy.assets import toy_path
from tests.hostile.harness import Case, Judged, command

KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device without end": lambda path: path.symlink_to("/dev/zero"),
    "an empty device": lambda path: path.symlink_to("/dev/null"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a folder": Path.mkdir,
    "an empty file": Path.touch,
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 9),
}
EDIT = ("--editor", "toy", "--steps", 2)
RUN = ("steps=1", "rollout.group_size=2", "rollout.groups_per_step=1", "rollout.steps=2", "evaluation=null")


def pictures(folder: Path) -> None:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (64, 64), "red").save(folder / name)


def use(make: Callable[[Path], object], name: str, arguments: tuple[Any, ...], folder: Path) -> None:
    """Run a command on an odd file."""
    pictures(folder)
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    make(path)
    command(*arguments)


DATA = ("check", "toy", "data.kind=jsonl", "data.path=data", "out=out")
USES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "a config": ("x.yaml", ("check", "x.yaml")),
    "a judge's settings": ("x.yaml", ("judge", "score", "a.png", "b.png", "go", "--judge", "x.yaml")),
    "a template": ("x", ("check", "toy", "judge.template=x", "out=out")),
    "a source": ("x", ("judge", "score", "x", "b.png", "go")),
    "an edit": ("x", ("judge", "score", "a.png", "x", "go")),
    "a reference": ("x", ("judge", "score", "a.png", "b.png", "go", "--reference", "x")),
    "a picture to edit": ("x.png", ("edit", "x.png", "add a cat", *EDIT)),
    "a LoRA": ("x", ("edit", "a.png", "add a cat", *EDIT, "--lora", "x")),
    "a LoRA to start from": ("x", ("check", "toy", "adapter.init=x", "out=out")),
    "the data's folder": ("x", ("check", "toy", "data.kind=jsonl", "data.path=x", "out=out")),
    "the data's file": ("data/data.jsonl", DATA),
    "preferences": ("x.jsonl", ("judge", "agree", "x.jsonl", "--out", "out")),
    "a run to export": ("x", ("export", "x", "--to", "out")),
    "results to compare": ("x", ("eval", "compare", "x", "x", "--out", "out")),
    "a file of pairs of a parquet": ("x.parquet", ("judge", "agree", "x.parquet", "--out", "out")),
}
CASES = tuple(
    Case(f"{use_name} is {kind}", partial(use, make, name, arguments))
    for use_name, (name, arguments) in USES.items()
    for kind, make in KINDS.items()
)


def item(make: Callable[[Path], object], folder: Path) -> None:
    """A picture of the data is an odd file."""
    (folder / "data").mkdir()
    make(folder / "data" / "x.png")
    (folder / "data" / "data.jsonl").write_text(json.dumps({"source": "x.png", "instruction": "go"}))
    command(*DATA)


CASES += tuple(Case(f"a picture of the data is {kind}", partial(item, make)) for kind, make in KINDS.items())


def write(make: Callable[[Path], object], arguments: tuple[Any, ...], folder: Path) -> None:
    pictures(folder)
    make(folder / "x")
    command(*arguments)


PLACES = {name: KINDS[name] for name in ("a pipe", "an empty device", "a link to itself", "an empty file")}
CASES += tuple(
    Case(f"{name} written into {kind}", partial(write, make, arguments))
    for name, arguments in {
        "a run": ("train", "toy", *RUN, "out=x"),
        "a run below": ("train", "toy", *RUN, "out=x/y"),
        "a demo": ("demo", "--out", "x"),
        "an evaluation": ("eval", "toy", "--items", 1, "--edits", 1, "--steps", 2, "--out", "x"),
    }.items()
    for kind, make in PLACES.items()
)


CASES += tuple(
    Case(f"a picture written into {kind}", partial(write, KINDS[kind], ("toy", "sample", "--out", "x")))
    for kind in ("a pipe", "an empty device", "a device without end", "a folder")
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_odd_file_breaks_a_command(case: Case, judged: Judged) -> None:
    judged(case)


def replaced(name: str, model: str, make: Callable[[Path], object], folder: Path) -> Path:
    """A copy of a toy model in which a file is odd."""
    copy = shutil.copytree(toy_path(model), folder / "model")
    (copy / name).unlink(missing_ok=True)
    make(copy / name)
    return copy


def edit_with(name: str, make: Callable[[Path], object], folder: Path) -> None:
    path = replaced(name, "qwen-image-edit", make, folder)
    check_editor(EditorConfig(path=str(path)))
    open_editor(path)


def judge_with(name: str, make: Callable[[Path], object], folder: Path) -> None:
    settings = JudgeConfig(path=str(replaced(name, "judge", make, folder)))
    if faults := check_judge(settings, []):
        raise UserError(*faults)
    check_processor(settings)
    TransformersModel(Path(str(settings.path))).answer([Ask(("Is it done?",), choices=("yes", "no"))])


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


ODD_JSON = {
    "null": text("null"),
    "a list": text("[1]"),
    "a number": text("1e999"),
    "nested": text(100_000 * "["),
    "5,000 digits": text('{"a": ' + 5000 * "9" + "}"),
    "odd types": text(
        json.dumps({"vocab_size": "x", "hidden_size": [], "num_layers": -1, "model_type": 3, "model": 0})
    ),
}
FEW = ("a pipe", "a device without end", "a link to itself", "an empty file")
BOTH = {**{name: KINDS[name] for name in FEW}, **ODD_JSON}
EDITOR_FILES = (
    "model_index.json",
    "transformer/config.json",
    "scheduler/scheduler_config.json",
    "vae/config.json",
    "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json",
)
JUDGE_FILES = (
    "config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
)
MODELS = (
    *(Case(f"{n}: {k}", partial(edit_with, n, make), "either") for n in EDITOR_FILES for k, make in BOTH.items()),
    *(Case(f"{n}: {k}", partial(judge_with, n, make), "either") for n in JUDGE_FILES for k, make in BOTH.items()),
)


@pytest.mark.parametrize("case", MODELS, ids=str)
def test_no_odd_file_of_a_model_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)


LAYER = "transformer.transformer_blocks.0.attn.to_q"


def tensors(**changes: Any) -> dict[str, torch.Tensor]:
    return {f"{LAYER}.lora_A.weight": torch.ones(2, 192), f"{LAYER}.lora_B.weight": torch.ones(192, 2), **changes}


def saved(content: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Callable[[Path], object]:
    return lambda path: save_file(content, path, metadata)


def lying(header: Any, data: bytes = b"", length: int | None = None) -> Callable[[Path], object]:
    """A safetensors file with this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def tensor(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {f"{LAYER}.lora_A.weight": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def adapter(**settings: Any) -> dict[str, str]:
    return {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in settings.items()})}


LORAS: dict[str, Callable[[Path], object]] = {
    "nothing": Path.touch,
    "seven bytes": lambda path: path.write_bytes(b"1234567"),
    "a header of 2^63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
    "a header of 2^64 - 1 bytes": lying({}, length=2**64 - 1),
    "a header without an end": lying(b'{"a":'),
    "a header that is a list": lying([]),
    "a nested header": lying(b'{"a":' + 10**5 * b"[" + b"}"),
    "a header with a key twice": lying(
        json.dumps(tensor()).encode()[:-1] + b"," + json.dumps(tensor()).encode()[1:], bytes(8)
    ),
    "no tensors": lying({}),
    "a shape of 10^18": lying(tensor(shape=(10**18,)), bytes(8)),
    "a shape of zeros": lying(tensor(shape=(0, 10**18), offsets=(0, 0))),
    "a negative shape": lying(tensor(shape=(-2,)), bytes(8)),
    "a shape that overflows": lying(tensor(shape=(2**32, 2**32)), bytes(8)),
    "offsets beyond the file": lying(tensor(offsets=(0, 10**12))),
    "offsets turned round": lying(tensor(offsets=(8, 0)), bytes(8)),
    "an unknown dtype": lying(tensor(dtype="F4096"), bytes(8)),
    "a dtype of lists": lying(tensor(dtype=["F32"]), bytes(8)),  # type: ignore[arg-type]
    "a pickle": lambda path: torch.save(tensors(), path),
    "whole numbers": saved({k: v.to(torch.int64) for k, v in tensors().items()}),
    "truth values": saved({k: v.to(torch.bool) for k, v in tensors().items()}),
    "complex numbers": saved({k: v.to(torch.complex64) for k, v in tensors().items()}),
    "float8": saved({k: v.to(torch.float8_e4m3fn) for k, v in tensors().items()}),
    "NaN": saved({k: v * float("nan") for k, v in tensors().items()}),
    "infinities": saved({k: v * float("inf") for k, v in tensors().items()}),
    "a down alone": saved({f"{LAYER}.lora_A.weight": torch.ones(2, 192)}),
    "ranks that differ": saved(tensors(**{f"{LAYER}.lora_B.weight": torch.ones(192, 3)})),
    "rank 0": saved({f"{LAYER}.lora_A.weight": torch.ones(0, 192), f"{LAYER}.lora_B.weight": torch.ones(192, 0)}),
    "rank 4096": saved(
        {f"{LAYER}.lora_A.weight": torch.ones(4096, 192), f"{LAYER}.lora_B.weight": torch.ones(192, 4096)}
    ),
    "three dimensions": saved(
        {f"{LAYER}.lora_A.weight": torch.ones(2, 192, 1), f"{LAYER}.lora_B.weight": torch.ones(192, 2, 1)}
    ),
    "scalars": saved({k: torch.tensor(1.0) for k in tensors()}),
    "another model's width": saved({k: torch.ones(4, 4) for k in tensors()}),
    "a layer of nowhere": saved({k.replace("to_q", "nowhere"): v for k, v in tensors().items()}),
    "a layer that is no linear one": saved({k.replace("attn.to_q", "attn"): v for k, v in tensors().items()}),
    "names with patterns": saved({k.replace("to_q", "(.*)+["): v for k, v in tensors().items()}),
    "names with newlines": saved({k.replace("to_q", "\n\x1b[2J"): v for k, v in tensors().items()}),
    "a name without a layer": saved(
        {"transformer.lora_A.weight": torch.ones(2, 192), "transformer.lora_B.weight": torch.ones(192, 2)}
    ),
    "a name of 100,000 letters": saved({k.replace("to_q", 10**5 * "a"): v for k, v in tensors().items()}),
    "a name of dots": saved({k.replace("to_q", 500 * "."): v for k, v in tensors().items()}),
    "names of Python": saved({k.replace("to_q", "__class__.__init__"): v for k, v in tensors().items()}),
    "two layouts": saved({**tensors(), "base_model.model.x.lora_A.weight": torch.ones(2, 192)}),
    "an alpha of NaN": saved(tensors(**{f"{LAYER}.alpha": torch.tensor(float("nan"))})),
    "an alpha of infinity": saved(tensors(**{f"{LAYER}.alpha": torch.tensor(float("inf"))})),
    "an alpha that is a matrix": saved(tensors(**{f"{LAYER}.alpha": torch.ones(3, 3)})),
    "settings that are no JSON": saved(tensors(), {"lora_adapter_metadata": "{"}),
    "settings that are a list": saved(tensors(), {"lora_adapter_metadata": "[]"}),
    "settings that are nested": saved(tensors(), {"lora_adapter_metadata": 10**5 * "["}),
    "settings of 5,000 digits": saved(tensors(), {"lora_adapter_metadata": '{"transformer.r": ' + 5000 * "9" + "}"}),
    "settings of 20 MB": saved(tensors(), {"lora_adapter_metadata": '{"a": "' + "x" * 20_000_000 + '"}'}),
    "an alpha that is text": saved(tensors(), adapter(lora_alpha="x")),
    "an alpha that is a list": saved(tensors(), adapter(lora_alpha=[])),
    "an alpha of 10^400": saved(tensors(), adapter(lora_alpha=10**400)),
    "an alpha that is NaN": saved(tensors(), adapter(lora_alpha=float("nan"))),
    "a pattern that is none": saved(tensors(), adapter(alpha_pattern={"(": 1})),
    "a pattern without end": saved(tensors(), adapter(alpha_pattern={"(a|aa|(.*)*)*$x": 1})),
    "patterns that are a list": saved(tensors(), adapter(alpha_pattern=["x"])),
    "patterns to nothing": saved(tensors(), adapter(alpha_pattern={".*": None})),
    "an unknown kind of LoRA": saved(tensors(), adapter(use_dora=True, peft_type="X")),
}


def load(make: Callable[[Path], object], folder: Path) -> None:
    make(folder / "x.safetensors")
    editor = open_editor(toy_path("qwen-image-edit"))
    load_lora_into(editor.pipe, folder / "x.safetensors")


@pytest.mark.parametrize("name", LORAS)
def test_no_lora_breaks_it(name: str, judged: Judged) -> None:
    judged(Case(name, partial(load, LORAS[name]), "either"))


def test_a_right_lora_is_loaded(judged: Judged) -> None:
    judged(Case("right", partial(load, saved(tensors())), "clean"))
