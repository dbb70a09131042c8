"""What the shell completes beside commands and options: presets, files of settings, editors. It imports little."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from editr1.config.presets import additions, editor_of, presets

WEIGHTS = Path(__file__).parents[1] / "toy" / "weights"


def configs(incomplete: str) -> list[str]:
    """The presets and YAML files that begin so; folders end with a slash."""
    return [*_begin(presets(), incomplete), *_files(incomplete)]


def overrides(incomplete: str) -> list[str]:
    """The additions that begin so; settings are not completed."""
    return _begin(additions(), incomplete)


def editors(incomplete: str) -> list[str]:
    """The editors of the presets, and YAML files of runs, that begin so."""
    return [*_begin(["toy", *sorted({editor_of(name) for name in presets()})], incomplete), *_files(incomplete)]


def toy_editors(incomplete: str) -> list[str]:
    """The shipped editors that begin so, as `editr1 demo` calls them."""
    return _begin(sorted(path.parent.name for path in WEIGHTS.glob("*/model_index.json")), incomplete)


def _begin(names: list[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _files(incomplete: str) -> Iterator[str]:
    """YAML files, and folders that may hold some, below what is typed."""
    folder, slash, start = incomplete.rpartition("/")
    for path in sorted(Path(folder + slash).expanduser().glob("*")):
        if path.name.startswith(start) and not (path.name.startswith(".") and not start):
            if path.is_dir():
                yield f"{folder}{slash}{path.name}/"
            elif path.suffix in (".yaml", ".yml"):
                yield f"{folder}{slash}{path.name}"
