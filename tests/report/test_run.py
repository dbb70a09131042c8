"""The report: right numbers, nothing from outside, readable in light, dark and on a phone."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image as Images

from editr1.algorithms.base import find_algorithms
from editr1.errors import UserError
from editr1.report.run import DRIFT, pair_gallery, write_report
from editr1.report.run_folder import read_run
from editr1.report.text import signed
from editr1.training.log import duration
from tests.report.browser import browse, needs_chromium
from tests.report.synthetic import STEPS, TASKS, write_demo, write_metrics


class Texts(HTMLParser):
    """Rows of cells of each table, by the table's id."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs)["id"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("report") / "a demo"
    results = write_demo(folder)
    return write_report(folder), results


def expected_row(task: str, n: int, figures: dict[str, Any]) -> list[str]:
    low, high = figures["ci95"]
    change = f"{figures['delta']:+.2f} [{low:+.2f}, {high:+.2f}]".replace("-", "−")
    return [task, str(n), f"{figures['before']:.2f}", f"{figures['after']:.2f}", change, ""]


def check_tables(page: str, results: dict[str, Any]) -> None:
    texts = Texts()
    texts.feed(page)
    for name in ("oracle", "judge"):
        rows = texts.tables[name][1:]
        wanted = [expected_row(task, entry["n"], entry[name]) for task, entry in results["by_task"].items()]
        assert [[cell.strip() for cell in row] for row in rows] == [*wanted, expected_row("all", 36, results[name])]


def chart_titles(page: str) -> list[str]:
    return re.findall(r'<svg class="chart"[^>]* aria-label="([^"]*)"', page)


def test_tables_show_the_figures_of_results_json(demo: tuple[Path, dict[str, Any]]) -> None:
    path, results = demo
    assert len(results["by_task"]) == len(TASKS)
    check_tables(path.read_text(encoding="utf-8"), results)


def test_page_refers_to_nothing_outside_and_runs_no_script(demo: tuple[Path, dict[str, Any]]) -> None:
    page = demo[0].read_text(encoding="utf-8")
    targets = re.findall(r"""(?:src|href|url|action|srcset)\s*[=(]\s*["']?([^"')\s>]+)""", page)
    assert targets and all(target.startswith("data:") for target in targets)
    assert not re.search(r"https?://|<script|@import|//cdn", page)


def test_count_of_items_left_out_and_settings_are_shown(demo: tuple[Path, dict[str, Any]]) -> None:
    page = demo[0].read_text(encoding="utf-8")
    assert "an edit got no reward: 1 of 36 instructions" in page
    assert "8 instructions × 12 edits, 6 denoiser calls each" in page
    assert f"{STEPS} steps in 5 min 12 s" in page
    assert "toy:qwen-image-edit" in page and "editr1 0." in page


def test_gallery_holds_the_best_and_the_worst_edit_and_instructions_are_escaped(
    demo: tuple[Path, dict[str, Any]],
) -> None:
    page = demo[0].read_text(encoding="utf-8")
    run = read_run(demo[0].parent)
    best, worst = max(run.pairs, key=lambda pair: pair.change), min(run.pairs, key=lambda pair: pair.change)
    for pair in (best, worst):
        assert html.escape(pair.before.instruction) in page
        scores = f"oracle {pair.before.oracle['score']:.2f} → <b>{pair.after.oracle['score']:.2f}</b>"
        assert scores in page
    assert "<beside>" not in page
    sections = {title: pairs for title, _, pairs in pair_gallery(run)}
    assert sections["Largest gains"][0] == best and sections["Largest losses"][0] == worst
    assert {pair.before.task for pair in sections["One of each task"]} == set(TASKS)
    assert len({pair.before.key for pair in sections["Largest gains"]}) == len(sections["Largest gains"])


def test_edit_without_a_reward_shows_a_dash_not_a_zero(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    write_demo(tmp_path / "run", items=9, unscored=9)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["judge"] == {"before": None, "after": None, "delta": None, "ci95": None}
    assert "judge – → <b>" in page
    assert "9 of 9 instructions" in page


def test_training_without_evaluation_leaves_its_sections_out_with_a_sentence(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "not evaluated before and after training" in page
    assert "there is no gallery" in page
    assert "<table" not in page and 'class="tiles"' not in page
    assert f"{STEPS} steps in 3 min 40 s" in page  # 40 x (3.0 + 0.9 + 1.5 + 0.1) s
    optimiser = ["Loss", "Distance to the untrained editor (KL)", "Gradient norm", "Update norm"]
    assert chart_titles(page) == ["Reward", "Spread", "Groups", *TASKS, *DRIFT.values(), *optimiser]
    assert "DiffusionNFT, β 1, KL 1, filter “paper”" in page


@pytest.mark.parametrize(("name", "title", "more"), [("awm", "AWM", 1), ("grpo", "Flow-GRPO", 0)])
def test_charts_of_the_loss_are_those_of_the_algorithm_of_the_run(
    tmp_path: Path, name: str, title: str, more: int
) -> None:
    write_metrics(tmp_path, algorithm=name)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    distance = {
        "awm": "Distance to the untrained editor (KL)",
        "grpo": "KL divergence of steps from the untrained editor&#x27;s",
    }
    parts = ["Policy loss", "Share of clipped ratios", distance[name]]
    parts += ["Distance to the sampling policy"] * more
    assert chart_titles(page)[-6 - more :] == ["Loss", *parts, "Gradient norm", "Update norm"]
    assert f"{title}, KL 1, filter “paper”" in page and "DiffusionNFT" not in page


@pytest.mark.parametrize("name", ["crd", "dgpo", "dpo", "rft"])
def test_every_part_of_a_loss_has_its_chart_and_the_page_names_the_algorithm(tmp_path: Path, name: str) -> None:
    write_metrics(tmp_path, algorithm=name)
    page, kind = write_report(tmp_path).read_text(encoding="utf-8"), find_algorithms()[name]
    assert chart_titles(page)[-3 - len(kind.parts) :] == ["Loss", *kind.parts.values(), "Gradient norm", "Update norm"]
    assert f"{kind.title}, " in page and "DiffusionNFT" not in page


def test_run_from_before_algorithms_had_names_is_diffusion_nft(tmp_path: Path) -> None:
    write_metrics(tmp_path)
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del config["algorithm"]["name"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert chart_titles(page)[-4:-2] == ["Loss", "Distance to the untrained editor (KL)"]
    assert "DiffusionNFT, β 1" in page


def test_run_stopped_before_its_first_step_has_a_report(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run", steps=0)
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "No step has been recorded yet" in page and "0 steps in 0 min 0 s" in page


def test_folder_without_a_run_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run \(no config.yaml\)"):
        write_report(tmp_path)


@pytest.mark.parametrize(("seconds", "words"), [(59.6, "1 min 0 s"), (312.4, "5 min 12 s"), (11400, "3 h 10 min")])
def test_duration_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_sign_is_always_written() -> None:
    assert (signed(0.123), signed(-0.126), signed(None)) == ("+0.12", "−0.13", "–")


@needs_chromium
def test_browser_shows_the_tables_without_a_complaint(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    dom, log = browse(demo[0], tmp_path / "profile", "--dump-dom")
    check_tables(dom, demo[1])
    assert "CONSOLE" not in log


@needs_chromium
@pytest.mark.parametrize(("theme", "page_colour"), [((), (251, 251, 250)), (("--force-dark-mode",), (21, 23, 27))])
def test_page_follows_the_theme(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, theme: tuple[str, ...], page_colour: tuple[int, int, int]
) -> None:
    shot = tmp_path / "shot.png"
    browse(demo[0], tmp_path / "profile", f"--screenshot={shot}", *theme, window="1200,3000")
    with Images.open(shot) as image:
        colours = image.convert("RGB").getcolors(image.width * image.height)
    assert colours is not None
    counts = {colour: count for count, colour in colours}
    assert max(counts, key=lambda colour: counts[colour]) == page_colour
    ink = (27, 29, 33) if not theme else (236, 238, 241)
    assert counts.get(ink, 0) > 500  # text of the theme's own colour


@needs_chromium
def test_page_is_no_wider_than_a_phone(demo: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    frame = tmp_path / "phone.html"
    page = html.escape(demo[0].read_text(encoding="utf-8"), quote=True)
    wide = "Math.max(...[...page.querySelectorAll('table')].map(t => t.getBoundingClientRect().right))"
    script = (
        "const page = this.contentDocument; "
        f"document.body.dataset.width = Math.ceil(Math.max(page.documentElement.scrollWidth, {wide}))"
    )
    frame.write_text(f'<body><iframe width="375" height="800" onload="{script}" srcdoc="{page}"></iframe></body>')
    dom, _ = browse(frame, tmp_path / "profile", "--dump-dom")
    found = re.search(r'data-width="(\d+)"', dom)
    assert found and int(found[1]) <= 375


def test_alarms_of_the_run_are_at_the_top_of_the_page(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Alarms" not in page
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    rows[-3:] = [{**row, "reward_mean": 0.01} for row in rows[-3:]]
    (tmp_path / "run/metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert f"<b>Reward collapsed</b> (steps {STEPS - 2} to {STEPS}). The mean reward fell from" in page
    assert page.index("Reward collapsed") < page.index("What was run")


def test_command_commit_machine_and_memory_of_the_run_are_on_the_page(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    session = {
        "command": "editr1 train a.yaml 'out=my run'",
        "commit": {"editr1": "0123456789ab with changes"},
        "hardware": "NVIDIA H100, 80 GiB",
        "float32_products": "high",
        "versions": {"torch": "9.9"},
        "peak_memory_gib": {"process": 3.26, "gpu": 61.04},
    }
    (tmp_path / "run/session.json").write_text(json.dumps(session))
    page = html.unescape(write_report(tmp_path / "run").read_text(encoding="utf-8"))
    for words in (session["command"], "editr1 0123456789ab with changes", "NVIDIA H100, 80 GiB", "torch 9.9", "high"):
        assert f"<dd>{words}</dd>" in page
    assert "<dd>3.3 GiB main memory, 61.0 GiB GPU memory</dd>" in page


def test_the_page_says_that_what_is_trained_is_what_was_sampled(tmp_path: Path) -> None:
    write_metrics(tmp_path / "run")
    assert "Sampled = trained" not in write_report(tmp_path / "run").read_text(encoding="utf-8")
    check = {
        "replay_error": 0.0,
        "trained": 50,
        "layers": 76,
        "steps": 5,
        "modules": 5,
        "silent": ["a.0.q"],
        "dead_ends": [],
    }
    (tmp_path / "run/self_check.json").write_text(json.dumps(check))
    page = write_report(tmp_path / "run").read_text(encoding="utf-8")
    words = "replay error 0, 50 of 76 layers are trained, no gradient in 1 (a.0.q)"
    assert f"<dt>Sampled = trained</dt><dd>{words}</dd>" in page


def test_rewards_that_are_mixed_are_named_and_each_is_drawn(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_metrics(folder)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["rewards"] = {"keep": {"kind": "preservation", "weight": 0.5}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    parts = [{**row, "reward_parts": {"judge": 0.5, "keep": None if row["step"] == 1 else 0.9}} for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in parts))
    page = write_report(folder).read_text(encoding="utf-8")
    assert "<dd>keep (preservation, weight 0.5)</dd>" in page and "The rewards that are mixed" in page
    titles = chart_titles(page)
    assert titles[3:5] == ["judge", "keep"]
    assert "mixed: 0.5" in page  # the line of the mean reward is not called the judge's


def test_intervals_of_fewer_than_five_items_are_dashed(demo: tuple[Path, dict[str, Any]]) -> None:
    page = demo[0].read_text(encoding="utf-8")
    bars = re.findall(r'<svg class="interval (\w+)"', page)
    assert bars == [*["few"] * len(TASKS), "up"] * 2


def test_note_of_the_reward_says_how_much_the_items_alone_move_it(demo: tuple[Path, dict[str, Any]]) -> None:
    page = demo[0].read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (demo[0].parent / "metrics.jsonl").read_text().splitlines()]
    means = [row["reward_mean"] for row in rows]
    between = [row["reward_std_all"] ** 2 - row["reward_std_within"] ** 2 for row in rows]
    groups = [row["groups_kept"] + sum(row["dropped"].values()) for row in rows]
    noise = (sum(b * n / (n - 1) / n for b, n in zip(between, groups, strict=True)) / len(rows)) ** 0.5
    assert f"moves its mean by about ±{noise:.2f}" in page
    assert f"({sum(means[:10]) / 10:.2f} in the first 10, {sum(means[-10:]) / 10:.2f} in the last 10)" in page


@needs_chromium
@pytest.mark.parametrize("width", [1600, 1280, 1024])
def test_nothing_is_cut_off_at_the_widths_of_screens(
    demo: tuple[Path, dict[str, Any]], tmp_path: Path, width: int
) -> None:
    frame = tmp_path / "screen.html"
    page = html.escape(demo[0].read_text(encoding="utf-8"), quote=True)
    hidden = "[...this.contentDocument.querySelectorAll('.scroll')].map(s => s.scrollWidth - s.clientWidth)"
    script = f"document.body.dataset.hidden = Math.max(...{hidden})"
    frame.write_text(f'<body><iframe width="{width}" height="800" onload="{script}" srcdoc="{page}"></iframe></body>')
    dom, _ = browse(frame, tmp_path / "profile", "--dump-dom", window=f"{width + 50},900")
    assert re.search(r'data-hidden="(-?\d+)"', dom)[1] == "0"  # type: ignore[index]
