import io
import logging
import multiprocessing
import sys

import pytest
from rich.console import Console
from rich.table import Table

from editr1.terminal import announce, is_main, is_quiet, loudness, open_console, show_table, wrap

NAME = "results/qwen-image-edit-2509-after-1000-steps"
CHANGE = "+0.15 [+0.12, +0.19]"


def table(**column: bool) -> Table:
    grid = Table(title="A benchmark of nine tasks")
    grid.add_column("editor")
    for name in ("semantics", "perception", "overall", "change [95%]", "items"):
        grid.add_column(name, justify="right", **column)  # type: ignore[arg-type]
    grid.add_row(NAME, "7.12", "6.98", "6.80", CHANGE, "144")
    grid.add_row("base", "7.00", "6.50", "6.20", CHANGE, "144")
    return grid


def shown(grid: Table, width: int) -> str:
    out = io.StringIO()
    show_table(Console(file=out, width=width), grid)
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 20, 40, 80, 120])
def test_no_width_breaks_a_word_of_a_table_or_drops_a_column(width: int) -> None:
    words = sorted(shown(table(), 300).replace("│", " ").replace("┃", " ").split())
    narrow = shown(table(), width).replace("│", " ").replace("┃", " ").split()
    assert sorted(word for word in narrow if word[0] not in "┏┡├└━") == [w for w in words if w[0] not in "┏┡├└━"]


@pytest.mark.parametrize("width", [1, 80])
def test_cells_that_may_not_be_wrapped_are_whole_at_every_width(width: int) -> None:
    assert shown(table(no_wrap=True), width).count(CHANGE) == 2 and NAME in shown(table(), width)


def test_a_table_that_fits_is_as_wide_as_it_needs_to_be() -> None:
    plain = io.StringIO()
    Console(file=plain, width=200).print(table())
    assert shown(table(), 200) == plain.getvalue()


def test_lines_are_as_wide_as_the_terminal_and_words_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    assert wrap(f"one two three four {NAME} five", "* ", "  ") == ["* one two three four", f"  {NAME}", "  five"]


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (logging.WARNING, ["editr1: warning: lost", "PIL: warning: odd"]),
        (logging.INFO, ["reading ...", "editr1: warning: lost", "PIL: warning: odd"]),
        (
            logging.DEBUG,
            ["reading ...", "editr1: warning: lost", "editr1: debug: why", "PIL: warning: odd", "PIL: info: size"],
        ),
    ],
)
def test_what_each_loudness_tells(level: int, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.getLogger().level, logging.getLogger("editr1").level
    with loudness(level):
        assert is_quiet() == (level == logging.WARNING)
        announce("reading")
        logging.getLogger("editr1.files").warning("lost")
        logging.getLogger("editr1.files").debug("why")
        logging.getLogger("PIL").warning("odd")
        logging.getLogger("PIL").info("size")
        logging.getLogger("PIL").debug("every byte")
        open_console().print("a table")
        open_console(always=True).print("the result")
        open_console(always=True, speaks=False).print("of another rank")
    out, error = capsys.readouterr()
    assert error.splitlines() == told
    assert out.splitlines() == ["the result"] if is_quiet() else ["a table", "the result"][level == logging.WARNING :]
    assert (logging.getLogger().level, logging.getLogger("editr1").level) == before and not is_quiet()


def test_of_several_ranks_the_main_one_tells_what_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        with loudness(logging.INFO):
            announce("reading")
            logging.getLogger("editr1.files").warning("lost")
    assert capsys.readouterr().err.splitlines() == [
        "reading ...",
        "editr1: rank 0: warning: lost",
        "editr1: rank 1: warning: lost",
    ]


def test_a_worker_is_not_the_process_that_tells() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert is_main() and not pool.apply(is_main)


class Bars:
    """A library's module of logging."""

    shown: bool | None = None

    def enable_progress_bar(self) -> None:
        self.shown = True

    def disable_progress_bar(self) -> None:
        self.shown = False


@pytest.mark.parametrize(("level", "terminal", "bars"), [(20, True, True), (20, False, False), (30, True, False)])
def test_libraries_draw_bars_in_a_terminal_alone_and_none_if_quiet(
    level: int, terminal: bool, bars: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Bars()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    with loudness(level):
        announce("reading", library)
    assert library.shown is bars
