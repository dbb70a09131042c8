"""What the shell completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from editr1.cli.completion import configs, editors, toy_editors
from editr1.cli.demo import PRESETS
from editr1.config.loading import load_config
from editr1.config.presets import presets

HEAVY = ("torch", "diffusers", "transformers", "numpy", "PIL")
PROGRAM = f"""
import sys
from editr1.cli.main import app
try:
    app(prog_name="editr1")
except SystemExit:
    sys.stderr.write(repr([name for name in {HEAVY} if name in sys.modules]))
"""


def completed(*words: str) -> tuple[list[str], str]:
    """What is offered for the last word, and what was imported for it that takes long."""
    asked = {"_EDITR1_COMPLETE": "complete_bash", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=True)
    return done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("editr1", "pre"), ["presets"]),
        (("editr1", "train", "qwen_image_edit_25"), ["qwen_image_edit_2509", "qwen_image_edit_2511"]),
        (("editr1", "check", "longcat"), ["longcat_image_edit"]),
        (("editr1", "train", "toy", "+pre"), ["+preserve"]),
        (("editr1", "config", "show", "toy"), ["toy", "toy_flux_kontext"]),
        (("editr1", "edit", "a.png", "go", "--editor", "meituan"), ["meituan-longcat/LongCat-Image-Edit"]),
        (("editr1", "eval", "toy", "--edit"), ["--editor", "--edits"]),
        (("editr1", "demo", "--editor", "f"), ["flux-kontext"]),
    ],
    ids=lambda value: " ".join(value[1:]) if isinstance(value, tuple) else "",
)
def test_commands_presets_and_editors_are_completed_without_heavy_imports(
    words: tuple[str, ...], offered: list[str]
) -> None:
    assert completed(*words) == (offered, "[]")


def test_all_presets_and_shipped_editors_are_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert configs("") == presets() and toy_editors("") == sorted(PRESETS)
    assert set(editors("")) == {"toy", *(load_config(name).editor.path for name in presets())}


def test_yaml_files_are_offered_beside_presets_and_folders_lead_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tools").mkdir()
    for name in ("tools/a.yml", "tools/b.txt", "toys.yaml", ".hidden.yaml"):
        (tmp_path / name).touch()
    assert configs("to") == ["toy", "toy_flux_kontext", "tools/", "toys.yaml"]
    assert configs("tools/") == ["tools/a.yml"] and editors("tools/a") == ["tools/a.yml"]
    assert configs(f"{tmp_path}/toy") == [f"{tmp_path}/toys.yaml"] and ".hidden.yaml" not in configs("")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes_after_the_script_is_installed(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "editr1"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m editr1 "$@"\n')
    program.chmod(0o755)
    home = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    script = """
    editr1 --install-completion bash >&2 && source ~/.bashrc
    complete -p editr1 >&2
    COMP_WORDS=(editr1 train flux_k); COMP_CWORD=2; _editr1_completion editr1; echo "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "--norc", "-c", script], env=home, capture_output=True, text=True, check=True)
    assert done.stdout == "flux_kontext\n", done.stderr
    assert "_editr1_completion editr1" in done.stderr


def test_the_script_is_shown_too() -> None:
    command = [sys.executable, "-c", PROGRAM, "--show-completion", "bash"]
    env = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}  # it looks for a shell among the parents
    said = subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    assert "_EDITR1_COMPLETE=complete_bash" in said and said.rstrip().endswith("editr1")
