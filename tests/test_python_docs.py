"""The Python API as it is documented: every name, every block of code, the notebook and the examples of own code."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
from diffusers import QwenImageEditPlusPipeline
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

import editr1
from editr1.cli import main as cli
from editr1.editors.families import FAMILIES
from editr1.files import read_lines

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGE = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^### `(\w+)(\(.*\))?`$", PAGE, re.MULTILINE)


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)


LOADED, SCRIPT = blocks("README.md")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder; what a script changes in this process is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    for pipeline, record in FAMILIES.items():
        monkeypatch.setitem(FAMILIES, pipeline, record)
    return tmp_path


def run(script: Path | str, here: Path) -> dict[str, Any]:
    """Run a script, or its text, as `python` does."""
    if isinstance(script, str):
        (here / "script.py").write_text(script)
        script = here / "script.py"
    return runpy.run_path(str(script), run_name="__main__")


def test_the_page_has_a_section_for_each_name_and_no_other() -> None:
    assert sorted(name for name, _ in HEADINGS) == sorted(editr1.__all__)


@pytest.mark.parametrize(("name", "words"), [pair for pair in HEADINGS if pair[1]])
def test_a_signature_on_the_page_is_that_of_the_code(name: str, words: str) -> None:
    signature = inspect.signature(getattr(editr1, name))
    bare = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    assert str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == words


@pytest.mark.long
@pytest.mark.parametrize("code", [LOADED, *blocks("docs/python.md")])
def test_every_block_of_python_runs(code: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    class Stand:
        """For a pipeline of 20 billion parameters."""

        def load_lora_weights(self, path: str) -> None:
            loaded.append(path)

    assert callable(QwenImageEditPlusPipeline.load_lora_weights)
    monkeypatch.setattr(QwenImageEditPlusPipeline, "from_pretrained", lambda name: Stand())
    run(code, here)
    assert ("load_lora_weights" in code) == (loaded == ["lora"])


@pytest.mark.long
def test_the_script_of_the_readme_is_short_trains_three_steps_and_saves_an_edit(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len([line for line in SCRIPT.splitlines() if line.strip()]) <= 15
    run(SCRIPT, here)
    lines = capsys.readouterr().out.splitlines()
    rows = read_lines(here / "runs/first/metrics.jsonl")
    assert lines[4:] == [f"{row['step']} {row['reward_mean']}" for row in rows] and len(rows) == 3
    assert all(0 <= float(line.split()[0]) <= 1 and line.split()[1] == "None" for line in lines[:4])
    assert Image.open(here / "edit.png").size == (64, 64)


@pytest.mark.long
def test_the_notebook_runs_from_top_to_bottom_and_holds_no_outputs(here: Path) -> None:
    notebook = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert notebook["nbformat"] == 4 and all(cell["outputs"] == [] and not cell["execution_count"] for cell in cells)
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(compile("".join(cell["source"]), "cell", "exec"), names)
    rows = read_lines(here / "runs/quickstart/metrics.jsonl")
    assert names["rewards"] == [row["reward_mean"] for row in rows] and len(rows) == 3
    assert Image.open(here / "quickstart.png").size == names["after"].size == (64, 64)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_an_example_is_short_and_named_on_the_page(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 40
    assert f"`examples/{file.name}`" in PAGE


def rows_of(name: str, here: Path) -> list[dict[str, Any]]:
    """Run an example; the rows of its two steps."""
    run(ROOT / "examples" / f"{name}.py", here)
    rows = read_lines(here / "runs" / name / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and all(row["unscored"] == 0 for row in rows)
    return rows


@pytest.mark.long
def test_the_own_reward_is_mixed_with_the_judges(here: Path) -> None:
    rows = rows_of("own_reward", here)
    assert all(row["reward_parts"].keys() == {"calm", "judge"} for row in rows)
    assert all(0.5 < row["reward_parts"]["calm"] < 1 for row in rows)
    calm = runpy.run_path(str(ROOT / "examples" / "own_reward.py"))["calm"]
    black, white = (Image.new("RGB", (8, 8), colour) for colour in ("black", "white"))
    assert [calm(black, edit, "", "", "add") for edit in (black, white)] == [1.0, 0.0]
    assert calm(black, white, "", "", "background") is None


@pytest.mark.long
def test_the_own_judge_sees_whole_groups(here: Path) -> None:
    rows = rows_of("own_judge", here)
    spread = (5 / 36) ** 0.5  # of the ranks 0, 1/3, 2/3, 1
    assert [row["reward_mean"] for row in rows] == pytest.approx([0.5, 0.5])
    assert [row["reward_std_within"] for row in rows] == pytest.approx([spread, spread])


@pytest.mark.long
def test_the_own_items_are_trained_on(here: Path) -> None:
    assert all(row["reward_by_task"].keys() == {"adjust"} for row in rows_of("own_dataset", here))


@pytest.mark.long
def test_what_an_own_algorithm_began_in_python_the_command_goes_on_with_and_reports_in_its_words(here: Path) -> None:
    rows = rows_of("own_algorithm", here)
    assert all(row["used"] * 8 == round(row["used"] * 8) and "kl" not in row for row in rows)
    saved = str(here / "runs/own_algorithm/config.yaml")
    result = CliRunner().invoke(cli.app, ["train", saved, "steps=3"])
    assert result.exit_code == 0, result.output
    assert [row["step"] for row in read_lines(here / "runs/own_algorithm/metrics.jsonl")] == [1, 2, 3]
    assert CliRunner().invoke(cli.app, ["report", "runs/own_algorithm"]).exit_code == 0
    page = (here / "runs/own_algorithm/report.html").read_text(encoding="utf-8")
    assert "Imitation of the best" in page and "Share of edits that are imitated" in page


@pytest.mark.long
def test_the_own_family_says_which_weights_are_trained(here: Path) -> None:
    rows_of("own_family", here)
    (file,) = (here / "runs/own_family/checkpoints/step_000002/ema").glob("*.safetensors")
    with safe_open(file, "pt") as weights:
        assert {re.search(r"(to_\w+)\.lora", name)[1] for name in weights.keys()} == {"to_q", "to_k"}  # type: ignore[index]  # noqa: SIM118
    assert Image.open(here / "runs/own_family/edit.png").size == (64, 64)
