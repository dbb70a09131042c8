"""Every block of code in README and docs is run, or read by what would run it; none is left out.

Run: Python (`test_python_docs.py`, `test_tutorial.py`), the tutorial's commands, and those of `AT_ONCE`. Read: settings
by the config, items by the dataset, commands by the parsers of editr1 and torchrun with the settings that they name.
Blocks of "text" hold nothing to run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from torch.distributed.run import get_args_parser
from typer.testing import CliRunner

from editr1.ablation.grid import config_of, read_grid
from editr1.cli.main import app
from editr1.config.loading import known_keys, load_config
from editr1.config.presets import presets
from editr1.config.rewards import KINDS
from editr1.config.settings import Config
from editr1.data.samples import ItemLine, JsonlDataset
from editr1.recipe.boxes import read_boxes
from editr1.training.datasets import KINDS as KINDS_OF_DATA
from tests.documents import COMMANDS, GUIDES, ROOT, Block, blocks, name_of, spans

BLOCKS = blocks(*GUIDES)
COMMAND_BLOCKS = [block for block in BLOCKS if block.language in COMMANDS]
NEEDED = {"editor": {"path": "x"}, "judge": {"path": "x"}, "data": {"path": "x"}}
AT_ONCE = ("presets", "config show", "editor list", "toy sample")
"""Commands that take a moment and need nothing: they are run."""
FOREIGN = {"mkdir", "cd", "vllm", "kubectl", "docker"}
"""Programs of others whose words we cannot read."""
NOT_SETTINGS = {"data.jsonl", "data.json", "editor.pipe"}
MADE = {"draw.py"}
"""Scripts that a reader writes on the way."""


def settings_in(text: str) -> list[dict[str, Any]]:
    """The settings of a block; if it names a key twice, each line is a choice of its own."""
    keys = re.findall(r"^(\w+):", text, re.MULTILINE)
    parts = [text] if len(keys) == len({*keys}) else text.splitlines()
    return [yaml.safe_load(part) for part in parts]


FILES = {name: block.text for block in BLOCKS if block.language == "yaml" and (name := name_of(block.text))}
"""Settings that a document gives a name."""


def leaf(words: Sequence[str]) -> tuple[str, Any, list[str]]:
    """The command of editr1 that is named, and its arguments."""
    group: Any = typer.main.get_command(app)
    flags = {option for parameter in group.params for option in parameter.opts}
    rest, name = [*words], []
    while hasattr(group, "commands"):
        while rest[0] in flags:
            rest.pop(0)
        name.append(rest.pop(0))
        group = group.commands[name[-1]]
    return " ".join(name), group, rest


def read_editr1(words: Sequence[str], folder: Path) -> None:
    """Parse a command, and load the settings that it names."""
    name, command, arguments = leaf(words)
    parameters = command.make_context(name, arguments).params
    config = parameters.get("config")
    if config is None or config.isupper():
        return
    assert config in presets() or config in FILES, f"{config} is neither shipped nor in a document"
    if config in FILES:
        (folder / config).write_text(FILES[config])
        config = str(folder / config)
    load_config(config, parameters["overrides"] or [])


def read_command(words: Sequence[str], folder: Path) -> None:
    """Check a command as far as it can be without running it."""
    program, *arguments = words
    program = program.removeprefix(".venv/bin/")
    if program == "editr1":
        read_editr1(arguments, folder)
    elif program == "torchrun":
        launch = get_args_parser().parse_args(arguments)
        assert launch.module and launch.training_script == "editr1"
        read_editr1(launch.training_script_args, folder)
    elif program == "sbatch":
        script, *rest = (word for word in arguments if not word.startswith("--"))
        assert (ROOT / script).is_file()
        if script.endswith("train.sbatch"):
            read_editr1(["train", *rest], folder)
    elif program == "python":
        assert arguments[0] in MADE or (ROOT / arguments[0]).is_file()
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        named = re.findall(r"(?:\.|editr1)\[([\w,]+)\]", " ".join(arguments))
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert {extra for each in named for extra in each.split(",")} <= {*extras}
    else:
        assert program in FOREIGN, f"nobody knows {program}"


def test_each_block_is_of_a_kind_that_is_run_or_read() -> None:
    assert {block.language for block in BLOCKS} == {*COMMANDS, "python", "yaml", "json", "text"}
    assert {block.document for block in BLOCKS if block.language == "python"} == {
        *("README.md", "docs/python.md"),  # test_python_docs.py runs them
        *("docs/tutorial.md", "docs/howto/own_reward.md"),  # test_tutorial.py
    }


@pytest.mark.parametrize("block", COMMAND_BLOCKS, ids=lambda block: block.document)
def test_commands_are_those_of_the_programs(block: Block, tmp_path: Path) -> None:
    assert [*block.commands]
    for words in block.commands:
        read_command(words, tmp_path)


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "yaml"], ids=lambda block: block.document
)
def test_settings_are_those_of_a_run(block: Block, tmp_path: Path) -> None:
    for settings in settings_in(block.text):
        grid = "variants" in settings
        (tmp_path / "some.yaml").write_text(yaml.safe_dump(settings if grid else {**NEEDED, **settings}))
        if grid:
            some = read_grid(tmp_path / "some.yaml")
            assert [config_of(some, variant, 0, tmp_path) for variant in some.variants]
        else:
            load_config(tmp_path / "some.yaml")


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "json"], ids=lambda block: block.document
)
def test_items_are_read_by_the_dataset_and_boxes_by_the_recipe(block: Block, tmp_path: Path) -> None:
    if '"box"' in block.text:
        (tmp_path / "boxes.json").write_text(block.text)
        assert read_boxes(tmp_path / "boxes.json").keys() == json.loads(block.text).keys()
        return
    for line in block.text.splitlines():
        item = json.loads(line)
        pictures = (item[name] for name in ("source", "chosen", "rejected", "target") if name in item)
        for name in (*pictures, *item.get("references", ())):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
    (tmp_path / "data.jsonl").write_text(block.text)
    kind = next((kind for kind in KINDS_OF_DATA.values() if kind.stored and kind.stored[0] in item), ItemLine)
    assert len(JsonlDataset(tmp_path, kind=kind)) == len(block.text.splitlines())


def quick_commands() -> Iterator[tuple[str, ...]]:
    found = (words[1:] for block in COMMAND_BLOCKS for words in block.commands if words[0] == "editr1")
    named = (span.split()[1:] for document in GUIDES for span in spans(document) if span.startswith("editr1 "))
    for words in (*found, *named):
        if " ".join(words).startswith(AT_ONCE) and not any(word.isupper() for word in words):
            yield tuple(words)


@pytest.mark.parametrize("words", sorted({*quick_commands()}), ids=" ".join)
def test_commands_that_need_nothing_run(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*words])
    assert result.exit_code == 0 and result.output


@pytest.mark.parametrize("document", GUIDES)
def test_commands_and_options_within_the_text_exist(document: str, tmp_path: Path) -> None:
    for words in (span.split() for span in spans(document) if span.startswith("editr1 ")):
        command: Any = typer.main.get_command(app)
        if words[1] == "train" and {*words[2:3]} & {*presets()}:
            read_editr1(words[1:], tmp_path)
        for word in words[1:]:
            if word in getattr(command, "commands", {}):
                command = command.commands[word]
            elif word.startswith("--"):
                options = [
                    each for parameter in command.params for each in (*parameter.opts, *parameter.secondary_opts)
                ]
                assert word in options, words
            elif hasattr(command, "commands"):
                assert word == "...", words


@pytest.mark.parametrize("document", GUIDES)
def test_settings_within_the_text_exist(document: str) -> None:
    keys = {
        *known_keys(),
        "rewards.NAME",
        *(f"rewards.NAME.{key}" for kind in KINDS.values() for key in kind.model_fields),
    }
    for span in spans(document):
        key = re.sub(r"^rewards\.\w+", "rewards.NAME", span.partition("=")[0])  # whatever name a run gives it
        if key.partition(".")[0] in Config.model_fields and re.fullmatch(r"[a-zA-Z_]+(\.[a-zA-Z_]+)+", key):
            assert key in keys | NOT_SETTINGS, span
