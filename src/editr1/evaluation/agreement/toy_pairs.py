"""Pairs of toy edits with the oracle's preference, generated from a seed: nothing is stored or downloaded."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL.Image import Image

from editr1.config.data import Level
from editr1.evaluation.agreement.pairs import Pair, Preference
from editr1.toy import oracle
from editr1.toy.corrupt import candidate
from editr1.toy.scene import draw, to_image
from editr1.toy.world import make_item

TIE = 0.05  # a smaller difference of the oracle's scores is a tie
WORLD = 5005  # seed of the items: other held-out items than evaluations use


def toy_pairs(count: int = 600, seed: int = 0, level: Level = "small") -> list[Pair]:
    """`count` pairs of edits of held-out items, of the tasks in turn.

    The edits are of the same kinds as those that the toy judge is trained on, the scenes are others.
    """
    return [_pair(index, seed, level) for index in range(count)]


def _pair(index: int, seed: int, level: Level) -> Pair:
    item = make_item(level, "heldout", WORLD + seed, index)
    rng = np.random.default_rng([WORLD, seed, index])
    first, second = (to_image(candidate(rng, item, level).picture) for _ in range(2))
    score_a, score_b = oracle.score(item, first).score, oracle.score(item, second).score
    better: Preference = "a" if score_a > score_b else "b"
    return Pair(
        key=f"toy-{seed}-{index}",
        source=partial(_picture, to_image(draw(item.scene))),
        instruction=item.edit.instruction,
        edit_a=partial(_picture, first),
        edit_b=partial(_picture, second),
        preference="tie" if abs(score_a - score_b) < TIE else better,
        task=item.edit.task,
        requirement=item.edit.requirement,
        score_a=score_a,
        score_b=score_b,
        layout="toy",
    )


def _picture(image: Image) -> Image:
    return image
