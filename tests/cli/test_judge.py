from __future__ import annotations

import sys

import pytest

from editr1.cli import main as cli


@pytest.mark.parametrize("command", [["serve", "--model", "toy:judge"], ["arena", "run_a", "run_b"]])
def test_a_server_without_its_packages_says_what_to_install(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in ("editr1.judges.models.server", "editr1.evaluation.arena.server"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    for module in ("fastapi", "uvicorn"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "argv", ["editr1", "judge", *command])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    needs = f"judge {command[0]} needs fastapi and uvicorn: pip install 'editr1[serve]'"
    assert needs in " ".join(capsys.readouterr().err.split())
