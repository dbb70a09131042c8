"""The toy judge's own server was never taught to write: whatever it says makes no item, and breaks nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from tests.recipe.scenes import make_scenes

SECONDS = 300  # until something hangs


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """`editr1 judge serve --model toy` in a process of its own; its address."""
    log = tmp_path / "server.log"
    with log.open("w") as file:
        command = [sys.executable, "-m", "editr1", "judge", "serve", "--model", "toy", "--port", "0"]
        process = subprocess.Popen(command, stderr=file, stdout=file)
        try:
            ends = time.monotonic() + SECONDS
            while not (said := re.search(r"Serving .* at (http\S+)", log.read_text())):
                assert process.poll() is None and time.monotonic() < ends, log.read_text()
                time.sleep(0.2)
            yield said[1]
        finally:
            process.kill()
            process.wait(SECONDS)


@pytest.mark.slow
def test_data_build_with_the_toy_judges_server_rejects_what_it_says_and_counts_it(server: str, tmp_path: Path) -> None:
    make_scenes(tmp_path / "pictures", 2)
    command = ["data", "build", str(tmp_path / "pictures"), "--out", str(tmp_path / "data"), "--per-picture", "10"]
    result = CliRunner().invoke(app, [*command, "--model", f"openai:{server}?model=judge"])
    assert result.exit_code == 0, result.output
    counts = json.loads((tmp_path / "data" / "counts.json").read_text())
    assert counts["answered"] == counts["pictures"] == 2
    assert counts["items"] == len((tmp_path / "data" / "data.jsonl").read_text().splitlines())
    assert sum(sum(reasons.values()) for reasons in counts["rejected"].values()) == 2 * 10
    assert "no item came of it" in result.stderr
    assert counts["rejected"]["text"] == {"not JSON": 2}
