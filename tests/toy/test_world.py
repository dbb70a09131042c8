"""Items: one for ever for a seed, splits that share no scene, nine task types with words that fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.errors import UserError
from editr1.toy.scene import CELLS, Scene, Thing, artwork, draw, looks_flipped
from editr1.toy.tasks import TASKS, article
from editr1.toy.world import LEVELS, SPLITS, ToyDataset, item_from_key, make_item, names_of, split_of

indices = st.integers(0, 2**30)


def test_the_same_index_gives_the_same_item_and_the_key_leads_back_to_it() -> None:
    dataset = ToyDataset("rl", 30, seed=5)
    for index in range(30):
        item = dataset.item(index)
        assert item == make_item("small", "rl", 5, index) == item_from_key(dataset[index].key)


@settings(max_examples=60, deadline=None)
@given(indices, st.sampled_from(SPLITS), st.sampled_from(LEVELS))
def test_a_scene_belongs_to_the_split_that_it_is_drawn_for(index: int, split: str, level: str) -> None:
    item = make_item(level, split, 0, index)  # type: ignore[arg-type]
    assert split_of(item.scene) == split
    assert item.edit.task == TASKS[index % 9]
    assert {thing.name for thing in item.scene.things} <= set(names_of(level))  # type: ignore[arg-type]


def test_splits_share_no_scene() -> None:
    shown = [
        {(tuple((t.name, t.cell) for t in item.scene.things), item.scene.background) for item in items}
        for items in ([ToyDataset(split, 900).item(i) for i in range(900)] for split in SPLITS)
    ]
    assert not shown[0] & shown[1] and not shown[0] & shown[2] and not shown[1] & shown[2]


@settings(max_examples=90, deadline=None)
@given(indices)
def test_the_target_differs_visibly_from_the_source(index: int) -> None:
    item = make_item("small", "sft", 0, index)
    assert np.abs(draw(item.scene) - draw(item.edit.target)).max() > 0.1


def test_extract_leaves_one_object_on_white() -> None:
    item = make_item("small", "sft", 0, TASKS.index("extract"))
    picture = draw(item.edit.target)
    assert len(item.edit.target.things) == 1
    assert np.allclose(picture[0, 0], 1)


def test_a_recolour_swaps_the_dominant_fill_exactly() -> None:
    natural, blue = draw(Scene((Thing("star", 0),))), draw(Scene((Thing("star", 0, "blue"),)))
    assert natural[16, 16] == pytest.approx(np.array([0xFC, 0xD5, 0x3F]) / 255, abs=1e-3)
    assert blue[16, 16] == pytest.approx(np.array([0x1F, 0x6F, 0xE8]) / 255, abs=1e-3)


def test_only_what_is_not_symmetric_is_asked_to_be_mirrored() -> None:
    assert looks_flipped("guitar") and not looks_flipped("bell")


def test_words_and_scenes_are_named_as_people_say_them() -> None:
    assert [article(word) for word in ("apple", "cat", "jeans", "blue jeans")] == [
        "an apple",
        "a cat",
        "jeans",
        "blue jeans",
    ]
    assert len(artwork()) >= 60 and len(names_of("small")) == 32 and len(CELLS) == 4


@pytest.mark.parametrize(
    "key", ["", "toy", "toy/huge/rl/0/1", "toy/small/rl/0/x", "other/small/rl/0/1", "toy/small/rl/0/1/2"]
)
def test_a_foreign_key_is_refused_with_an_example(key: str) -> None:
    with pytest.raises(UserError, match="toy/small/rl/0/17"):
        item_from_key(key)


def test_an_index_past_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        ToyDataset("rl", 3)[3]
