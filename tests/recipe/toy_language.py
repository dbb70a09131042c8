"""The language of the toy world, read backwards: an instruction to what is done, and to what."""

from __future__ import annotations

import re
from functools import lru_cache

from editr1.toy.scene import BACKGROUNDS, CELLS, COLOURS, STYLES, Scene
from editr1.toy.tasks import WORDINGS, article
from editr1.toy.world import names_of


@lru_cache(maxsize=1)
def patterns() -> list[tuple[str, re.Pattern[str]]]:
    """What is done, and how it is asked for; a colour of a ground is none of an object."""
    names = names_of("full")
    known = {
        "name": names,
        "place": CELLS,
        "colour": [*COLOURS, *BACKGROUNDS],
        "what": [article(f"{colour}{name}") for colour in ("", *(f"{one} " for one in COLOURS)) for name in names]
        + [article(ground) for ground in BACKGROUNDS],
    }
    found = []
    for what, (_, *wordings) in WORDINGS.items():
        places = known | ({"name": STYLES} if what == "style" else {})
        groups = {place: f"(?P<{place}>{'|'.join(map(re.escape, words))})" for place, words in places.items()}
        found += [
            (what, re.compile(re.escape(w).replace(r"\{", "{").replace(r"\}", "}").format(**groups), re.I))
            for w in wordings
        ]
    return found


def understand(instruction: str) -> list[tuple[str, dict[str, str]]]:
    """What is done with which words, one entry per edit; empty if it is not understood."""
    for what, pattern in patterns():
        if match := pattern.fullmatch(instruction):
            return [(what, match.groupdict())]
    for joint in re.finditer(r" and (?:then |also )?", instruction):
        one, two = understand(instruction[: joint.start()] + "."), understand(instruction[joint.end() :])
        if one and two:
            return [*one, *two]
    return []


def is_about(scene: Scene, edits: list[tuple[str, dict[str, str]]]) -> bool:
    """Whether every object that is edited is in the scene; styles and what is new need not be."""
    present = {thing.name for thing in scene.things}
    return all(words["name"] in present for what, words in edits if "name" in words and what != "style")
