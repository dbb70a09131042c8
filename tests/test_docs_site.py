"""The docs site is built without a complaint, loads nothing from elsewhere, and its reference is whole."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import editr1
from editr1.cli.main import app
from editr1.config.loading import known_keys
from editr1.config.rewards import KINDS
from tests.documents import ROOT

PAGES: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "reference_pages.py"))
SETTINGS, COMMANDS = PAGES["settings_page"](), PAGES["commands_page"]()


def row(key: str) -> list[str]:
    """The cells of a setting's row, of the first one if algorithms share it."""
    found = re.search(rf"^\| `{re.escape(key)}` \| (.*) \|$", SETTINGS, re.MULTILINE)
    assert found, key
    return found[1].split(" | ")


def commands(part: Any, name: str = "editr1") -> list[str]:
    """The commands of an app by whole names, as typer registers them."""
    below = [f"{name} {each.name or each.callback.__name__.replace('_', '-')}" for each in part.registered_commands]
    return below + [
        inner for group in part.registered_groups for inner in commands(group.typer_instance, f"{name} {group.name}")
    ]


def test_the_reference_names_every_setting() -> None:
    for key in known_keys():
        assert re.search(rf"^## {key}(,|$)|^\| `{re.escape(key)}` \|", SETTINGS, re.MULTILINE), key
    for kind, section in KINDS.items():
        assert f"## rewards, kind: {kind}\n" in SETTINGS
        assert all(row(f"rewards.NAME.{name}") for name in section.model_fields)


def test_the_reference_has_the_defaults_and_words_of_config_show() -> None:
    result = CliRunner().invoke(app, ["config", "show", "flux_kontext", "--json"])
    rows = json.loads(result.output)
    assert len(rows) > 60
    for each in rows:
        _, default, meaning = row(each["key"])
        assert meaning == each["meaning"].replace("|", "\\|")
        shown = each["default"] if isinstance(each["default"], str) else json.dumps(each["default"])
        assert default == ("required" if each["required"] else f"`{shown}`")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("optim.lr", "number above 0"),
        ("optim.betas", "list (number at least 0, below 1)"),
        ("editor.pixels", "whole number or null above 0, at most 100,000,000"),
        ("adapter.mode", "`lora` or `full`"),
        ("memory.offload", "`true` or `false`"),
        ("judge.criteria", "mapping (text: number above 0, at most 1,000,000.0)"),
        ("adapter.init", "path or null"),
    ],
)
def test_the_reference_says_which_values_a_setting_takes(key: str, words: str) -> None:
    assert row(key)[0] == words


@pytest.mark.parametrize("name", commands(app))
def test_the_reference_names_every_command_with_all_of_its_options(name: str) -> None:
    section = COMMANDS.partition(f"\n## {name}\n")[2]
    section = section.partition("\n## ")[0]
    said = CliRunner().invoke(app, [*name.split()[1:], "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).output
    options = {*re.findall(r"(?<![\w-])--[a-z][\w-]*", said)} - {"--help"}
    assert section and {*re.findall(r"`(--[\w-]+)`", section)} >= {
        option for option in options if re.search(rf"^\W*(?:-\w,? +)?{option}\b", said, re.MULTILINE)
    }


class Loads(HTMLParser):
    """What a page loads: scripts, styles, pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.places: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {"script": "src", "img": "src", "link": "href"}.get(tag)
        self.places += [value for name, value in attrs if name == named and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_elsewhere_and_all_that_they_load_is_there(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name != "404.html"]
    assert len(pages) > 20
    for page in pages:
        for place in Loads(page.read_text(encoding="utf-8")).places:
            assert "//" not in place and (page.parent / place.partition("?")[0]).exists(), (page, place)


def test_the_python_names_are_those_of_the_package(site: Path) -> None:
    page = (site / "reference" / "python.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2 [^>]*>(\w+)", page) == editr1.__all__
    assert page.count("doc-contents") >= len(editr1.__all__)


def test_make_builds_the_site_as_strictly() -> None:
    said = subprocess.run(
        ["make", "-n", "docs"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    commands = [line for line in said.splitlines() if "mkdocs" in line]
    # --quiet would leave out the warnings that strict counts
    assert len(commands) == 1 and commands[0].endswith("-m mkdocs build --strict")
