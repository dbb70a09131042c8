"""The nine task types of ImgEdit-Bench, as edits of a toy scene: words in, a target scene out.

Each maker takes (rng, scene, names) and gives an Edit, or None where the scene does not allow that task.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from editr1.toy.scene import BACKGROUNDS, CELLS, STYLES, Scene, Thing, colours_for, looks_flipped, looks_turned

Rng = np.random.Generator


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


def _thing(rng: Rng, scene: Scene) -> Thing | None:
    return scene.things[int(rng.integers(len(scene.things)))] if scene.things else None


def new_thing(rng: Rng, scene: Scene, names: Sequence[str], cell: int) -> Thing:
    """An object that is not in the scene yet, in its own colour."""
    present = {thing.name for thing in scene.things}
    return Thing(pick(rng, [name for name in names if name not in present]), cell)


def article(word: str) -> str:
    """The word with "a" or "an"; with neither where it is a plural."""
    if word.endswith(("jeans", "cherries", "scissors")):
        return word
    return ("an " if word[0] in "aeiou" else "a ") + word


def add(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Put a new object into an empty cell, in a named colour half of the time."""
    if not scene.free():
        return None
    cell = int(rng.choice(scene.free()))
    thing = new_thing(rng, scene, names, cell)
    if rng.random() < 0.3:
        thing = replace(thing, colour=pick(rng, colours_for(thing.name)))
    what = article(f"{thing.colour} {thing.name}" if thing.colour else thing.name)
    words = pick(
        rng,
        (
            f"Add {what} in the {CELLS[cell]}.",
            f"Put {what} in the {CELLS[cell]} corner.",
            f"Place {what} at the {CELLS[cell]}.",
            f"Insert {what} into the {CELLS[cell]} of the picture.",
            f"I want {what} in the {CELLS[cell]}.",
        ),
    )
    return Edit("add", words, f"There is {what} in the {CELLS[cell]}.", scene.put(thing), (str(cell),))


def adjust(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Recolour or resize one object."""
    thing = _thing(rng, scene)
    if thing is None:
        return None
    if rng.random() < 0.6:
        options = [colour for colour in colours_for(thing.name) if colour != thing.colour]
        colour = pick(rng, options)
        words = pick(
            rng,
            (
                f"Make the {thing.name} {colour}.",
                f"Change the color of the {thing.name} to {colour}.",
                f"Paint the {thing.name} {colour}.",
                f"Turn the {thing.name} {colour}.",
                f"The {thing.name} should be {colour}.",
            ),
        )
        done, need = replace(thing, colour=colour), f"The {thing.name} is {colour}."
    else:
        size = pick(rng, [size for size in ("small", "large") if size != thing.size])
        word = {"small": ("smaller", "Shrink"), "large": ("bigger", "Enlarge")}[size]
        words = pick(
            rng,
            (
                f"Make the {thing.name} {word[0]}.",
                f"{word[1]} the {thing.name}.",
                f"The {thing.name} should be {word[0]}.",
            ),
        )
        done, need = replace(thing, size=size), f"The {thing.name} is {word[0]}."
    return Edit("adjust", words, need, scene.put(done), (str(thing.cell),))


def extract(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Keep one object alone on white."""
    thing = _thing(rng, scene)
    if thing is None:
        return None
    name = thing.name
    words = pick(
        rng,
        (
            f"Extract the {name} onto a white background.",
            f"Cut out the {name}.",
            f"Show only the {name} on white.",
            f"Isolate the {name} on a plain white background.",
            f"Keep only the {name} and make all else white.",
        ),
    )
    others = tuple(str(other.cell) for other in scene.things if other != thing)
    target = Scene((thing,), "white")
    return Edit("extract", words, f"Only the {name} is left, on white.", target, ("background", *others))


def swap(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Replace one object by another."""
    thing = _thing(rng, scene)
    if thing is None:
        return None
    new = new_thing(rng, scene, names, thing.cell)
    old, what = thing.name, article(new.name)
    words = pick(
        rng,
        (
            f"Replace the {old} with {what}.",
            f"Swap the {old} for {what}.",
            f"Turn the {old} into {what}.",
            f"Change the {old} to {what}.",
            f"Put {what} where the {old} is.",
        ),
    )
    return Edit("replace", words, f"There is {what} in place of the {old}.", scene.put(new), (str(thing.cell),))


def remove(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Take one object away."""
    thing = _thing(rng, scene)
    if thing is None:
        return None
    name = thing.name
    words = pick(
        rng,
        (
            f"Remove the {name}.",
            f"Delete the {name}.",
            f"Erase the {name} from the picture.",
            f"Take away the {name}.",
            f"Get rid of the {name}.",
        ),
    )
    return Edit("remove", words, f"The {name} is gone.", scene.without(thing.cell), (str(thing.cell),))


def background(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Give the background another colour."""
    colour = pick(rng, [name for name in BACKGROUNDS if name not in (scene.background, "white")])
    words = pick(
        rng,
        (
            f"Change the background to {colour}.",
            f"Make the background {colour}.",
            f"Use {article(colour)} background.",
            f"Paint the background {colour}.",
            f"The background should be {colour}.",
        ),
    )
    target = replace(scene, background=colour, pattern="plain")
    return Edit("background", words, f"The background is {colour}.", target, ("background",))


def style(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Show the whole picture in another style."""
    name = pick(rng, STYLES)
    words = pick(
        rng,
        (
            f"Turn the picture into {name}.",
            f"Make it {name}.",
            f"Change the style to {name}.",
            f"Redo the picture in {name}.",
            f"Give the picture a {name} look.",
        ),
    )
    return Edit("style", words, f"The whole picture is in {name}.", replace(scene, style=name), ("all",))


def action(rng: Rng, scene: Scene, names: Sequence[str]) -> Edit | None:
    """Move, mirror or turn one object."""
    thing = _thing(rng, scene)
    if thing is None:
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
        words = pick(
            rng,
            (
                f"Move the {name} to the {CELLS[cell]}.",
                f"Put the {name} in the {CELLS[cell]}.",
                f"Shift the {name} to the {CELLS[cell]} corner.",
            ),
        )
        target = scene.without(thing.cell).put(replace(thing, cell=cell))
        return Edit("action", words, f"The {name} is in the {CELLS[cell]}.", target, (str(thing.cell), str(cell)))
    if kind == "flip":
        words = pick(rng, (f"Flip the {name}.", f"Mirror the {name}.", f"Make the {name} face the other way."))
        done, need = replace(thing, flipped=not thing.flipped), f"The {name} is mirrored."
    else:
        words = pick(
            rng, (f"Turn the {name} upside down.", f"Rotate the {name} upside down.", f"Stand the {name} on its head.")
        )
        done, need = replace(thing, turned=not thing.turned), f"The {name} is upside down."
    return Edit("action", words, need, scene.put(done), (str(thing.cell),))


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
