"""`editr1 editor probe|list` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.editors.catalogue import catalogue


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_list_as_json_is_the_catalogue() -> None:
    code, out, _ = run("editor", "list", "--json")
    assert code == 0
    assert json.loads(out) == catalogue()


def test_list_shows_every_name_whole_and_why_not_at_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("editor", "list")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for row in catalogue():
        assert row["pipeline"] in words and (row["family"] or "") in words and (row["reason"] or "") in words


def test_probe_of_a_known_pipeline_reports_agreement_and_parity(tiny_editor_path: Path) -> None:
    code, out, _ = run("editor", "probe", str(tiny_editor_path), "--pixels", "4096", "--json")
    report = json.loads(out)
    assert code == 0
    assert report["known"] and report["disagreements"] == [] and report["error"] is None
    assert (report["calls_a_step"], report["rows_an_edit"]) == (1, 1)
    assert report["guided"] == {"calls_a_step": 2, "rows_an_edit": 1}
    assert (report["replayed_calls"], report["largest_difference"]) == (3, 0.0)
    assert "source_areas=('VAE_IMAGE_SIZE',)" in report["record"]


def test_probe_for_people_shows_the_record(tiny_editor_path: Path) -> None:
    code, out, _ = run("editor", "probe", str(tiny_editor_path), "--pixels", "4096")
    assert code == 0
    assert out.startswith("Family(\n    name='qwen-image-edit-plus',")
    assert "3 denoiser calls replayed, largest difference 0." in out


@pytest.mark.parametrize("where", ["no/such/folder", "toy:nothing"])
def test_a_wrong_path_is_one_line_and_exit_code_2(where: str) -> None:
    code, out, err = run("editor", "probe", where)
    assert (code, out) == (2, "")
    assert err.startswith("editr1: ") and err.count("\n") == 1
