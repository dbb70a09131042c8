"""What the documents show must exist and work."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from editr1.config.loading import load_config
from editr1.config.presets import presets
from editr1.config.settings import AdapterConfig, Config, OptimConfig, RolloutConfig
from editr1.data.samples import JsonlDataset
from editr1.editors.catalogue import catalogue
from tests.documents import DOCUMENTS, ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first code block of a language in the README."""
    found = re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert found
    return found[1]


def test_settings_of_the_real_run_load_and_the_rest_is_as_the_text_says(tmp_path: Path) -> None:
    (tmp_path / "qwen.yaml").write_text(block("yaml"))
    config = load_config(tmp_path / "qwen.yaml")
    assert config.editor.path == "Qwen/Qwen-Image-Edit-2509" and config.out == Path("runs/qwen")
    defaults = Config(editor={"path": "x"}, judge={"path": "x"}, data={"path": "x"})  # type: ignore[arg-type]
    assert (config.rollout, config.optim, config.adapter) == (RolloutConfig(), OptimConfig(), AdapterConfig())
    assert (defaults.rollout.groups_per_step, defaults.rollout.group_size, defaults.rollout.steps) == (24, 12, 6)
    assert (defaults.editor.pixels, defaults.adapter.rank, defaults.optim.lr) == (512 * 512, 32, 3e-4)


def test_line_of_data_is_one_that_the_dataset_reads(tmp_path: Path) -> None:
    line = json.loads(block("json"))
    (tmp_path / "data.jsonl").write_text(json.dumps(line))
    (tmp_path / line["source"]).parent.mkdir()
    (tmp_path / line["source"]).write_bytes((ROOT / "README.md").read_bytes())  # pictures are opened when asked for
    assert len(JsonlDataset(tmp_path)) == 1


def headings(page: Path) -> set[str]:
    """What may follow a "#" in a link to a page; nothing may always."""
    lines = page.read_text(encoding="utf-8").splitlines() if page.suffix == ".md" else []
    return {"", *(line.lstrip("# ").lower().replace(" ", "-") for line in lines if line.startswith("#"))}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_and_named_paths_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"(?<!!)\[[^\]]*\]\(([^)]+)\)", text) if not link.startswith("https://")]
    paths = re.findall(r"`((?:src|tests|docs|benchmarks|examples)/[\w/.]+)`", text)
    links = [link for link in links if not link.startswith("reference/")]  # pages that the site makes, and checks
    split = (link.partition("#") for link in links)
    places = [((ROOT / name).parent / page if page else ROOT / name, place) for page, _, place in split]
    assert [(page, place) for page, place in places if not page.exists() or place not in headings(page)] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_table_of_editors_is_that_of_the_catalogue_and_all_of_it_passed() -> None:
    table = (ROOT / "docs" / "editors.md").read_text(encoding="utf-8")
    assert "FAILED" not in table
    for row in catalogue():
        shown = re.findall(rf"^\| {row['pipeline']} \| (.*) \|$", table, re.MULTILINE)
        if row["supported"]:
            sources = "any" if row["source_images"] is None else row["source_images"]
            assert [line.split(" | ")[:2] for line in shown] == [[row["family"], str(sources)]]
            assert shown[0].split(" | ")[2:7] == ["yes"] * 5
        else:
            assert shown == [row["reason"]]


def test_presets_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`((?:qwen|flux|longcat)\w*_\w+)`", README))
    assert named == {name for name in presets() if not name.startswith("toy")}


def test_the_readme_says_how_to_install_what_a_real_run_takes_and_which_presets_need_no_server() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "`pip install ." in text and re.search(r"\d+ GB in\s+bfloat16.*minutes on one H100", text, re.DOTALL)
    alone, _, _ = text.partition("need no server")
    for name in presets():
        served = bool(getattr(load_config(name).judge, "endpoints", None))
        assert served or re.search(rf"[` ]{name}`", alone), name
    gains = re.findall(r"\+0\.\d\d \[\+0\.\d\d, \+0\.\d\d\]", text)
    assert len(gains) >= 3, "a figure of the demo is a range over seeds, with intervals"


def test_the_method_is_read_in_five_files_of_under_1500_lines() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    names = re.findall(r"^\d\. `(src/editr1/[\w/]+\.py)`", text, re.MULTILINE)
    assert len(names) == 5
    assert sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in names) < 1500


@pytest.mark.parametrize("name", DOCUMENTS)
def test_make_targets_that_are_named_exist(name: str) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = re.findall(r"(?:`|^)make ([\w-]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(named) <= set(targets)
    assert {"demo", "test", "check", "bench", "clean", "help"} <= set(targets)
