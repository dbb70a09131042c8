"""Floors, arrows and circles of the package's imports: `python scripts/import_layers.py` prints them.

A room is a folder of `src/editr1`, or a file that lies directly in it. An arrow leads from a room to another one that
it imports. A floor is the length of the longest chain of arrows below a room. `ALLOWED` says which rooms a room may
import; a test checks it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "editr1"
Rooms = dict[str, set[str]]

LEAVES = {"errors", "files", "devices", "listening", "model_files", "terminal"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": {"errors"},
    "devices": {"errors"},
    "listening": {"errors"},
    "model_files": {"errors"},
    "terminal": set(),
    "algorithms": set(),
    "config": {"errors", "algorithms"},
    "data": LEAVES,
    "preservation": LEAVES | {"config", "data"},
    "toy": LEAVES | {"config", "data"},
    "editors": LEAVES | {"config", "data", "toy"},
    "judges": LEAVES | {"config", "data", "preservation", "toy"},
    "recipe": LEAVES | {"config", "data", "judges"},
    "training": LEAVES | {"config", "data", "preservation", "toy", "algorithms", "editors", "judges"},
    "evaluation": LEAVES | {"config", "data", "preservation", "toy", "editors", "judges", "training"},
    "report": LEAVES | {"config", "data", "preservation", "toy", "algorithms", "training", "evaluation"},
    "export": LEAVES | {"config", "data", "toy", "editors", "training", "report"},
    "api": LEAVES | {"config", "data", "editors", "judges", "training"},
    "toy_models": LEAVES | {"config", "data", "toy", "editors", "judges", "training", "evaluation"},
}
ALLOWED["ablation"] = LEAVES | {"config", "data", "toy", "editors", "judges", "training", "evaluation", "report"}
ALLOWED["planning"] = LEAVES | {"config", "data", "toy", "editors", "judges", "training", "toy_models"}
ALLOWED["cli"] = set(ALLOWED)
ALLOWED["__main__"] = {"cli"}
"""What each room may import. `editors` and `judges` do not know each other; nothing but `__main__` imports `cli`."""


def imported(file: Path, package: Path = PACKAGE) -> Iterator[str]:
    """The dotted names below `editr1` that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "editr1":
            for alias in node.names:
                yield f"{node.module}.{alias.name}".removeprefix("editr1.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "editr1":
                    yield alias.name.removeprefix("editr1").lstrip(".")


def rooms(package: Path = PACKAGE) -> Rooms:
    """The rooms that each room imports; `from editr1 import __version__` is no arrow."""
    found: Rooms = {}
    names = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    for file in sorted(package.rglob("*.py")):
        place = file.relative_to(package).parts
        room = place[0].removesuffix(".py")
        if room != "__init__":
            targets = {name.split(".")[0] for name in imported(file)} & names
            found.setdefault(room, set()).update(targets - {room})
    return found


def files(package: Path = PACKAGE) -> Rooms:
    """The files that each file imports, by dotted name."""
    known = {file.relative_to(package).with_suffix("").as_posix().replace("/", ".") for file in package.rglob("*.py")}
    found: Rooms = {}
    for file in package.rglob("*.py"):
        name = file.relative_to(package).with_suffix("").as_posix().replace("/", ".")
        targets = {target if target in known else target.rpartition(".")[0] for target in imported(file)}
        found[name] = (targets & known) - {name}
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other, each sorted."""
    reach = {node: _reachable(node, arrows) for node in arrows}
    groups = {tuple(sorted(other for other in reach[node] if node in reach[other])) for node in arrows}
    return sorted([*group] for group in groups if group)


def floors(arrows: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of every node, from 0.

    Raises:
        ValueError: there is a circle.
    """
    if found := circles(arrows):
        raise ValueError(f"a circle of imports has no floors: {' -> '.join(found[0])}")
    known: dict[str, int] = {}

    def floor(node: str) -> int:
        if node not in known:
            known[node] = 1 + max((floor(below) for below in arrows[node]), default=-1)
        return known[node]

    return {node: floor(node) for node in arrows}


def forbidden(arrows: Mapping[str, set[str]]) -> list[str]:
    """The arrows that `ALLOWED` does not name, as "room -> room"."""
    return [f"{room} -> {to}" for room in sorted(arrows) for to in sorted(arrows[room] - ALLOWED.get(room, set()))]


def _reachable(node: str, arrows: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    ahead = [*arrows[node]]
    while ahead:
        if (other := ahead.pop()) not in seen:
            seen.add(other)
            ahead += arrows.get(other, set())
    return seen


def main() -> None:
    """Print the floors from the top, then what breaks the rules."""
    arrows = rooms()
    rounds = circles(files())
    print(f"{sum(map(len, arrows.values()))} arrows between {len(arrows)} rooms")
    for kind, found in (("circles of rooms", circles(arrows)), ("circles of files", rounds)):
        print(f"{len(found)} {kind}" + "".join(f"\n  {' '.join(circle)}" for circle in found))
    print(f"{len(forbidden(arrows))} arrows that are not allowed" + "".join(f"\n  {a}" for a in forbidden(arrows)))
    if not circles(arrows):
        levels = floors(arrows)
        print(f"{max(levels.values()) + 1} floors")
        for level in range(max(levels.values()), -1, -1):
            print(f"  {level}: {', '.join(sorted(room for room in levels if levels[room] == level))}")


if __name__ == "__main__":
    main()
