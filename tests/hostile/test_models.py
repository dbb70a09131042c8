"""Model folders of strangers: no code of theirs is run, and whatever is odd is one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from editr1.config.settings import EditorConfig
from editr1.editors.check import check_editor
from editr1.editors.open import open_editor
from editr1.judges.base import Ask
from editr1.judges.models.local import TransformersModel
from tests.hostile.harness import Case, Judged
from tests.judges.tiny_judge import CHAT_TEMPLATE, build_tiny_judge
from tests.tiny import build_once

CODE = "import os, pathlib\npathlib.Path(os.environ['HOSTILE_RAN']).touch()\nclass Stranger: pass\n"
Change = Callable[[Path], object]


@pytest.fixture(scope="session")
def judge_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(tmp_path_factory, "hostile_judge", build_tiny_judge)


def index(**entries: Any) -> Change:
    """Change entries of model_index.json."""

    def change(folder: Path) -> None:
        file = folder / "model_index.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | entries))

    return change


def text(name: str, content: str) -> Change:
    return lambda folder: (folder / name).write_text(content)


def code(name: str, **entries: Any) -> Iterator[Change]:
    """Write a program, and name it in the index."""
    yield text(name, CODE)
    yield index(**entries)


def json_of(name: str, **entries: Any) -> Change:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text(json.dumps(json.loads(file.read_text()) | entries))

    return change


def pickle_of(name: str) -> Change:
    """The weights as a pickle alone."""

    def change(folder: Path) -> None:
        (file,) = (folder / name).glob("*.safetensors")
        torch.save(load_file(file), file.with_name("pytorch_model.bin"))
        torch.save(load_file(file), file.with_name("diffusion_pytorch_model.bin"))
        file.unlink()

    return change


def cut(name: str) -> Change:
    def change(folder: Path) -> None:
        (file,) = (folder / name).glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-100])

    return change


EDITORS: dict[str, tuple[Change, ...]] = {
    "custom component": (*code("vae/stranger.py", vae=["stranger", "Stranger"]),),
    "component in a file called diffusers": tuple(code("vae/diffusers.py")),
    "component in a file called transformers": (*code("text_encoder/transformers.py"),),
    "custom pipeline": (*code("stranger.py", _class_name=["stranger", "Stranger"]),),
    "component of os": (index(vae=["os", "system"]),),
    "component of a dotted name": (index(vae=["diffusers.utils", "logging"]),),
    "component of AutoModel": (index(vae=["diffusers", "AutoModel"]),),
    "component that is a function": (index(vae=["diffusers", "is_torch_available"]),),
    "component of another kind": (index(vae=["transformers", "Qwen2Tokenizer"]),),
    "component of no class": (index(vae=["diffusers", "Nothing"]),),
    "component that is empty": (index(vae=[]),),
    "component of numbers": (index(vae=[1, 2]),),
    "component of one name": (index(vae=["diffusers"]),),
    "component of lists": (index(vae=[["diffusers"], ["VAE"]]),),
    "component of null and a name": (index(vae=[None, "AutoencoderKL"]),),
    "component outside": (index(**{"../vae": ["diffusers", "AutoencoderKLQwenImage"]}),),
    "component with a NUL": (index(**{"vae\0": ["diffusers", "AutoencoderKLQwenImage"]}),),
    "scheduler is text": (index(scheduler="FlowMatchEulerDiscreteScheduler"),),
    "scheduler is a number": (index(scheduler=3),),
    "class is null": (index(_class_name=None),),
    "class is a number": (index(_class_name=3),),
    "class is a module": (index(_class_name="utils"),),
    "class is a function": (index(_class_name="is_torch_available"),),
    "class is a model": (index(_class_name="AutoencoderKL"),),
    "class is private": (index(_class_name="__class__"),),
    "index is a list": (text("model_index.json", "[]"),),
    "index is empty": (text("model_index.json", ""),),
    "index is null": (text("model_index.json", "null"),),
    "index is nested": (text("model_index.json", 100000 * "["),),
    "index has a long number": (text("model_index.json", '{"a": ' + 5000 * "9" + "}"),),
    "index is binary": (lambda folder: (folder / "model_index.json").write_bytes(b"\xff\xfe\0"),),
    "denoiser as a pickle": (pickle_of("transformer"),),
    "text encoder as a pickle": (pickle_of("text_encoder"),),
    "weights cut": (cut("transformer"),),
    "denoiser's config is a list": (text("transformer/config.json", "[]"),),
    "denoiser's config is nested": (text("transformer/config.json", 100000 * "["),),
    "denoiser of text": (json_of("transformer/config.json", num_layers="two"),),
    "denoiser without heads": (json_of("transformer/config.json", num_attention_heads=0),),
    "denoiser of other shapes": (json_of("transformer/config.json", num_attention_heads=4),),
    "tokenizer is empty": (text("tokenizer/tokenizer.json", "{}"),),
    "tokenizer is text": (text("tokenizer/tokenizer.json", "no JSON"),),
    "text encoder's config is empty": (text("text_encoder/config.json", "{}"),),
}

JUDGES: dict[str, tuple[Change, ...]] = {
    "code in the config": (
        json_of("config.json", model_type="stranger", auto_map={"AutoConfig": "stranger.Stranger"}),
        text("stranger.py", CODE),
    ),
    "code in the processor": (
        json_of("processor_config.json", processor_class="Stranger", auto_map={"AutoProcessor": "stranger.Stranger"}),
        text("stranger.py", CODE),
    ),
    "weights as a pickle": (pickle_of("."),),
    "weights cut": (cut("."),),
    "config is empty": (text("config.json", "{}"),),
    "config is a list": (text("config.json", "[]"),),
    "tokenizer is empty": (text("tokenizer.json", "{}"),),
    "tokenizer is text": (text("tokenizer.json", "no JSON"),),
    "processor is a list": (text("processor_config.json", "[]"),),
}
TEMPLATES = {
    "attributes of objects": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('true') }}",
    "a change of the messages": "{% set _ = messages.append(1) %}",
    "a name that is not there": "{{ nothing.at.all }}",
    "an exception": "{{ raise_exception('no\x1b[31m\nsecond line') }}",
    "bad syntax": "{% for %}",
    "a division": "{{ 1 // 0 }}",
    "a long range": "{% for i in range(10**9) %}a{% endfor %}",
    "a large text": "{{ 'a' * 10**11 }}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an import": "{% import 'os' as os %}",
    "an include": "{% include '/etc/passwd' %}",
    "no pictures": "{{ messages[0].role }}",
    "too many pictures": CHAT_TEMPLATE + 3 * "<|image_pad|>",
}
JUDGES |= {f"template: {name}": (text("chat_template.jinja", words),) for name, words in TEMPLATES.items()}


def changed(source: Path, changes: tuple[Change, ...], folder: Path) -> Path:
    """A copy of a model that a stranger has changed; programs in it leave a file."""
    model = shutil.copytree(source, folder / "model")
    for change in changes:
        change(model)
    return model


def refused_unrun(
    source: Path, changes: tuple[Change, ...], open_model: Callable[[Path], object], folder: Path
) -> None:
    """Open a changed model; it must not run its programs."""
    ran = folder / "ran"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOSTILE_RAN", str(ran))
        patch.setenv("HF_MODULES_CACHE", str(folder / "modules"))
        try:
            open_model(changed(source, changes, folder))
        finally:
            assert not ran.exists(), "code of the model is run"


def check(model: Path) -> None:
    check_editor(EditorConfig(path=str(model)))
    open_editor(model)


def answer(model: Path) -> None:
    TransformersModel(model).answer([Ask(("Is it done?",), choices=("yes", "no"))])


def cases(models: dict[str, tuple[Change, ...]], open_model: Callable[[Path], object]) -> tuple[Case, ...]:
    return tuple(
        Case(name, partial(refused_unrun, changes=changes, open_model=open_model)) for name, changes in models.items()
    )


def from_source(case: Case, source: Path) -> Case:
    return replace(case, act=lambda folder: case.act(source, folder=folder))  # type: ignore[call-arg]


@pytest.mark.parametrize("case", cases(EDITORS, check), ids=str)
def test_no_editor_breaks_it(case: Case, judged: Judged, tiny_editor_path: Path) -> None:
    judged(from_source(case, tiny_editor_path))


@pytest.mark.parametrize("case", cases(JUDGES, answer), ids=str)
def test_no_judge_breaks_it(case: Case, judged: Judged, judge_path: Path) -> None:
    judged(from_source(case, judge_path))


def test_what_is_not_changed_is_taken(judged: Judged, tiny_editor_path: Path, judge_path: Path) -> None:
    for source, open_model in ((tiny_editor_path, check), (judge_path, answer)):
        judged(Case("as it is", lambda _, s=source, o=open_model: o(s), "clean"))  # type: ignore[misc]
