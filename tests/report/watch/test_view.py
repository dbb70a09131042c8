"""The charts of `editr1 watch`."""

from __future__ import annotations

import json
from pathlib import Path

from editr1.report.run_folder import read_run
from editr1.report.watch.view import sections
from tests.report.synthetic import write_metrics
from tests.report.test_outside import measured_run

KEPT = "What must not change"


def test_what_is_kept_outside_of_masks_has_a_line_per_run_and_a_quiet_one_for_its_ceiling(tmp_path: Path) -> None:
    write_metrics(tmp_path / "plain")
    runs = [read_run(measured_run(tmp_path / "masked")), read_run(tmp_path / "plain")]
    psnr, ssim, features, structure, measured = dict(sections(runs, ["one", "two"]))[KEPT]
    assert psnr.title.startswith("PSNR outside of the masks (dB)")
    assert "one: ceiling: 27.5 at first, 27.5 at last" in psnr.chart and "one: 23.95 at first" in psnr.chart
    assert "one: ceiling: 0.91" in ssim.chart and "two" not in psnr.chart + ssim.chart
    assert not features.chart and not structure.chart and "one: 0.8 at first" in measured.chart


def test_a_run_that_measures_nothing_outside_has_no_such_chart(tmp_path: Path) -> None:
    write_metrics(tmp_path / "plain")
    rows = [json.loads(line) for line in (tmp_path / "plain/metrics.jsonl").read_text().splitlines()]
    assert not any("outside" in row for row in rows)
    assert not any(each.chart for each in dict(sections([read_run(tmp_path / "plain")], ["one"]))[KEPT])
