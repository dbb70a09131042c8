"""The nine task types of ImgEdit-Bench, as edits of a toy scene: words in, a target scene out.

Each maker takes (rng, scene, names) and returns an Edit, or None if the scene does not allow that task. The order of
its draws is frozen: it decides which items there are. The words are in `wordings.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np
import yaml

from editr1.toy.scene import BACKGROUNDS, CELLS, STYLES, Scene, Thing, colours_for, looks_flipped, looks_turned

Rng = np.random.Generator
WORDINGS: dict[str, list[str]] = yaml.safe_load(files("editr1.toy").joinpath("wordings.yaml").read_text("utf-8"))


@dataclass(frozen=True)
class Edit:
    """What is asked, and what a right answer shows.

    `parts` names what must change: a cell number as text, "background", or "all". Everything else must stay.
    """

    task: str
    instruction: str
    requirement: str
    target: Scene
    parts: tuple[str, ...]


def pick(rng: Rng, options: Sequence[str]) -> str:
    """One of `options`, each as likely."""
    return options[int(rng.integers(len(options)))]


def say(rng: Rng, what_is_done: str, **names: str) -> tuple[str, str]:
    """(instruction, requirement) of an edit; the instruction is one of its wordings."""
    requirement, *instructions = WORDINGS[what_is_done]
    return pick(rng, instructions).format(**names), requirement.format(**names)


def _thing(rng: Rng, scene: Scene) -> Thing | None:
    return scene.things[int(rng.integers(len(scene.things)))] if scene.things else None


def new_thing(rng: Rng, scene: Scene, names: Sequence[str], cell: int) -> Thing:
    """An object that is not in the scene yet, in its own colour."""
    present = {thing.name for thing in scene.things}
    return Thing(pick(rng, [name for name in names if name not in present]), cell)


def article(word: str) -> str:
    """The word with "a" or "an"; a plural as it is."""
    if word.endswith(("jeans", "cherries", "scissors")):
        return word
    return ("an " if word[0] in "aeiou" else "a ") + word


def add(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Put a new object into an empty cell; 3 of 10 are in a named colour."""
    if not scene.free():
        return None
    cell = int(rng.choice(scene.free()))
    thing = new_thing(rng, scene, names, cell)
    if rng.random() < 0.3:
        thing = replace(thing, colour=pick(rng, colours_for(thing.name)))
    what = article(f"{thing.colour} {thing.name}" if thing.colour else thing.name)
    return Edit("add", *say(rng, "add", what=what, place=CELLS[cell]), scene.put(thing), (str(cell),))


def adjust(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Recolour or resize one object."""
    if (thing := _thing(rng, scene)) is None:
        return None
    if rng.random() < 0.6:
        colour = pick(rng, [colour for colour in colours_for(thing.name) if colour != thing.colour])
        changed, words = replace(thing, colour=colour), say(rng, "recolour", name=thing.name, colour=colour)
    else:
        size = pick(rng, [size for size in ("small", "large") if size != thing.size])
        changed, words = replace(thing, size=size), say(rng, size, name=thing.name)
    return Edit("adjust", *words, scene.put(changed), (str(thing.cell),))


def extract(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Keep one object alone on white."""
    if (thing := _thing(rng, scene)) is None:
        return None
    others = [str(other.cell) for other in scene.things if other != thing]
    target = Scene((thing,), "white")
    return Edit("extract", *say(rng, "extract", name=thing.name), target, ("background", *others))


def swap(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Replace one object by another."""
    if (thing := _thing(rng, scene)) is None:
        return None
    new = new_thing(rng, scene, names, thing.cell)
    words = say(rng, "replace", name=thing.name, what=article(new.name))
    return Edit("replace", *words, scene.put(new), (str(thing.cell),))


def remove(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Take one object away."""
    if (thing := _thing(rng, scene)) is None:
        return None
    return Edit("remove", *say(rng, "remove", name=thing.name), scene.without(thing.cell), (str(thing.cell),))


def background(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Give the background another colour."""
    colour = pick(rng, [name for name in BACKGROUNDS if name not in (scene.background, "white")])
    words = say(rng, "background", colour=colour, what=article(colour))
    return Edit("background", *words, replace(scene, background=colour, pattern="plain"), ("background",))


def style(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Show the whole picture in another style."""
    name = pick(rng, STYLES)
    return Edit("style", *say(rng, "style", name=name), replace(scene, style=name), ("all",))


def action(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Move, mirror or turn one object."""
    if (thing := _thing(rng, scene)) is None:
        return None
    name, kinds = thing.name, []
    kinds += ["move"] * 2 if scene.free() else []
    kinds += ["flip"] if looks_flipped(name) else []
    kinds += ["turn"] if looks_turned(name) else []
    if not kinds:
        return None
    kind = pick(rng, kinds)
    if kind == "move":
        cell = int(rng.choice(scene.free()))
        target = scene.without(thing.cell).put(replace(thing, cell=cell))
        words = say(rng, kind, name=name, place=CELLS[cell])
        return Edit("action", *words, target, (str(thing.cell), str(cell)))
    changed = replace(thing, flipped=not thing.flipped) if kind == "flip" else replace(thing, turned=not thing.turned)
    return Edit("action", *say(rng, kind, name=name), scene.put(changed), (str(thing.cell),))


def compose(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Two edits of different parts, the second upon the result of the first."""
    makers = [add, adjust, swap, remove, background]
    first, second = (makers[int(i)] for i in rng.permutation(len(makers))[:2])
    one = first(rng, scene, names)
    if one is None:
        return None
    two = second(rng, one.target, names)
    if two is None or set(one.parts) & set(two.parts):
        return None
    joined = two.instruction[0].lower() + two.instruction[1:]
    words = f"{one.instruction[:-1]} {pick(rng, ('and', 'and then', 'and also'))} {joined}"
    need = f"{one.requirement} {two.requirement}"
    return Edit("compose", words, need, two.target, one.parts + two.parts)


Maker = Callable[[Rng, Scene, Sequence[str]], Edit | None]
MAKERS: dict[str, Maker] = {
    "add": add,
    "adjust": adjust,
    "extract": extract,
    "replace": swap,
    "remove": remove,
    "background": background,
    "style": style,
    "action": action,
    "compose": compose,
}
TASKS = tuple(MAKERS)
