"""The table of docs/hardware.md has what was measured where it was, and what is planned elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from editr1.config.loading import load_config
from editr1.planning.gpus import parse_gpus
from editr1.planning.plan import Plan
from editr1.planning.rehearsal import Step
from editr1.planning.shadow import Work
from editr1.planning.workload import STAGES, load_of
from tests.benchmarks.scripts import script

ROOT = Path(__file__).parents[2]
CARD = {"card": "NVIDIA H100 80GB HBM3", "memory_bytes": 85e9, "date": "2026-12-01", "tiny": False}


@pytest.fixture
def page() -> Iterator[ModuleType]:
    """scripts/hardware_page.py."""
    spec = spec_from_file_location("hardware_page", ROOT / "scripts" / "hardware_page.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["hardware_page"] = module_from_spec(spec)  # dataclasses look for it there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["hardware_page"]


@pytest.fixture
def gpu() -> Iterator[ModuleType]:
    """benchmarks/gpu.py."""
    with script("gpu") as module:
        yield module


def write_results(gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, out: Path, row: Any, **made: Any) -> None:
    """The file that gpu.py writes on a card, for klein with the settings of its preset; the row is made up."""
    monkeypatch.setattr(gpu, "card_of", lambda device, tiny: CARD | made)
    monkeypatch.setattr(gpu, "measure", lambda *args: row)
    monkeypatch.setattr(gpu, "in_words", str)
    gpu.run(["flux.2-klein-4b"], [gpu.Setting(micro_batch=3)], gpu.Size(matrix=16), torch.device("cpu"), out)


def plan_of(*overrides: str) -> Plan:
    """A made-up plan of klein, of 10 GB and no time."""
    config = load_config("flux2_klein", overrides)
    work = {stage: Work() for stage in STAGES}
    step = Step(work, {"denoiser": 10**10}, 0, {"train": 3, "denoise": 12}, 1, 1, 0, {})
    return Plan(config, parse_gpus("H100-80G"), step, load_of(config, 1))


ROW = {"seconds": {"step": 60.0, "train": 40.0}, "peak_bytes": {"decode": 20e9, "train": 31e9}}


def test_a_measured_cell_has_card_date_hours_and_peak(
    page: ModuleType, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """250 steps of 24 groups of 60 s are 100 hours."""
    write_results(gpu, monkeypatch, tmp_path, ROW)
    measurements, plan = page.read_measurements(tmp_path), plan_of()
    cell = page.cell(plan, parse_gpus("H100-80G"), measurements)
    assert cell.startswith("measured (NVIDIA H100 80GB HBM3, 2026-12-01): 100 h, 31.0 GB / planned: ")
    for other in ("H200-141G", "8xH100-80G"):
        assert page.cell(plan, parse_gpus(other), measurements).startswith("planned: ")
    for changes in (["memory.offload=true"], ["memory.quantize=nf4"], ["optim.micro_batch=6"]):
        assert page.cell(plan_of(*changes), parse_gpus("H100-80G"), measurements).startswith("planned: ")


def test_a_card_that_ran_out_of_memory_is_a_measured_no(
    page: ModuleType, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write_results(gpu, monkeypatch, tmp_path, {"failed": "out of memory"})
    cell = page.cell(plan_of(), parse_gpus("H100-80G"), page.read_measurements(tmp_path))
    assert cell.startswith("measured (NVIDIA H100 80GB HBM3, 2026-12-01): no / planned: ")


@pytest.mark.parametrize(
    ("row", "made"),
    [
        ({"failed": "bitsandbytes is missing"}, {}),
        (ROW, {"tiny": True}),
        (ROW, {"card": "CPU"}),
        (ROW, {"memory_bytes": 42e9}),
    ],
)
def test_what_says_nothing_of_a_cell_leaves_it_planned(
    page: ModuleType,
    gpu: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    row: dict[str, Any],
    made: dict[str, Any],
) -> None:
    write_results(gpu, monkeypatch, tmp_path, row, **made)
    assert page.read_measurements(tmp_path) == {}


@pytest.mark.parametrize(
    ("card", "memory", "kind"),
    [
        ("NVIDIA H100 80GB HBM3", 85.0e9, "H100-80G"),
        ("NVIDIA H200", 150.1e9, "H200-141G"),
        ("NVIDIA GeForce RTX 4090", 25.4e9, "RTX4090-24G"),
        ("NVIDIA A100-SXM4-40GB", 42.4e9, "A100-40G"),
        ("NVIDIA L40S", 47.7e9, "L40S-48G"),
        ("NVIDIA L4", 23.6e9, None),
    ],
)
def test_cards_are_known_by_the_names_that_torch_gives(
    page: ModuleType, card: str, memory: float, kind: str | None
) -> None:
    assert page.kind_of(card, memory) == kind


def test_settings_have_the_names_of_the_benchmark(page: ModuleType, gpu: ModuleType) -> None:
    base = ["memory.gradient_checkpointing=true", "optim.micro_batch=12"]
    changes = {
        "checkpointing": ["memory.gradient_checkpointing=false"],
        "compile": ["memory.compile=true"],
        "cache": ["memory.cache=cache"],
        "autocast": ["adapter.autocast=true"],
        "tf32": ["memory.tf32=true"],
    }
    for name, more in changes.items():
        setting = gpu.Setting(**{name: name != "checkpointing"})
        assert page.setting_of(load_config("flux2_klein", [*base, *more])) == str(setting)
    int8 = load_config("flux2_klein", [*base, "memory.quantize=int8"])
    assert page.setting_of(int8) == str(gpu.Setting("int8"))


def test_every_filled_cell_of_the_page_says_whether_it_is_planned_or_measured(page: ModuleType) -> None:
    text = (ROOT / "docs" / "hardware.md").read_text(encoding="utf-8")
    rows = text.partition(page.BEGIN)[2].partition(page.END)[0].split("\n\n")[0].strip().splitlines()[2:]
    cells = [cell.strip() for row in rows for cell in row.strip("|").split("|")[2:]]
    assert len(cells) == 9 * len(page.GPUS)
    assert all(cell.startswith(("planned: ", "measured (")) for cell in cells if cell)
