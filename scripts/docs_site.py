"""Hooks of the docs site (mkdocs.yml): the pages that are made from the code, and the files that pages link to."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))  # mkdocs loads this file by its path

from reference_pages import PAGES  # noqa: E402


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the reference, and the examples, which lie beside docs/."""
    for place, page in PAGES.items():
        files.append(File.generated(config, place, content=page()))
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links out of docs/, which work in the repository, as links inside of the site."""
    return re.sub(r"\]\((?:\.\./)+examples/", "](/examples/", markdown)
