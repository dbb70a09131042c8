"""How numbers and times read in pages, tables and terminals. A missing value is a dash, never a zero."""

from __future__ import annotations

MISSING = "–"


def number(value: float | None, places: int = 2) -> str:
    """A number with fixed decimals."""
    return MISSING if value is None else f"{value:.{places}f}"


def signed(value: float | None) -> str:
    """A change: two decimals with a plus or a true minus sign."""
    return MISSING if value is None else f"{value:+.2f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share in [0, 1] as percent with one decimal."""
    return number(None if value is None else 100 * value, 1)
