from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from editr1.preservation.region import DISAGREE, EVERYTHING, FEW, SIDE, derive_mask

SIZE = 64
BOX = (slice(20, 40), slice(10, 34))


def scene(seed: int = 0, size: int = SIZE) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(seed).random((size, size, 3)), (2, 2, 0))
    return 0.2 + 0.6 * (smooth - smooth.min()) / (smooth.max() - smooth.min())


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def edited(*places: tuple[slice, slice], tint: float = 0.0, shift: tuple[int, int] = (0, 0)) -> Image.Image:
    """The scene with something else at these places."""
    values = scene() + tint
    for place in places:
        values[place] = 1 - values[place].round()
    return picture(np.roll(values, shift, (0, 1)))


def iou(mask: Image.Image | str) -> float:
    assert isinstance(mask, Image.Image), mask
    truth = np.zeros((SIZE, SIZE), bool)
    truth[BOX] = True
    found = np.asarray(mask) > 0
    return float((found & truth).sum() / (found | truth).sum())


def test_the_mask_is_where_the_edits_agree_to_differ() -> None:
    mask = derive_mask(picture(scene()), [edited(BOX)] * 4)
    assert iou(mask) > 0.8 and isinstance(mask, Image.Image) and mask.mode == "L"


def test_damage_of_single_edits_is_outside_and_edits_that_change_nothing_do_not_vote() -> None:
    corners = [(slice(0, 12), slice(50, 64)), (slice(50, 64), slice(0, 14)), (slice(52, 64), slice(48, 64))]
    edits = [edited(BOX, corner) for corner in corners] + [edited(BOX)] * 2 + [edited()] * 8
    assert iou(derive_mask(picture(scene()), edits)) > 0.8


@pytest.mark.parametrize("shift", [(0, 1), (-1, 0), (2, -2)])
def test_a_shift_of_the_whole_picture_is_no_edit(shift: tuple[int, int]) -> None:
    assert derive_mask(picture(scene()), [edited(shift=shift)] * 4) == FEW
    assert iou(derive_mask(picture(scene()), [edited(BOX, shift=shift)] * 4)) > 0.75


@pytest.mark.parametrize("tint", [-0.02, 0.02])
def test_a_change_of_brightness_as_of_a_vae_is_no_edit(tint: float) -> None:
    assert derive_mask(picture(scene()), [edited(tint=tint)] * 4) == FEW
    assert iou(derive_mask(picture(scene()), [edited(BOX, tint=tint)] * 4)) > 0.8


@pytest.mark.parametrize(("tint", "shift"), [(0.02, (0, 1)), (-0.03, (2, 2)), (0.03, (-1, 2))])
def test_a_shift_is_found_where_the_brightness_has_changed_too(tint: float, shift: tuple[int, int]) -> None:
    assert derive_mask(picture(scene()), [edited(tint=tint, shift=shift)] * 4) == FEW
    assert iou(derive_mask(picture(scene()), [edited(BOX, tint=tint, shift=shift)] * 4)) > 0.75


def test_noise_and_lost_detail_are_no_edit() -> None:
    rng = np.random.default_rng(0)
    noisy = [picture(scene() + rng.normal(0, 0.04, (SIZE, SIZE, 3))) for _ in range(4)]
    blurred = [picture(gaussian_filter(scene(), (1, 1, 0)))] * 4
    assert derive_mask(picture(scene()), noisy) == derive_mask(picture(scene()), blurred) == FEW


def test_an_edit_of_the_whole_picture_has_no_mask() -> None:
    negative = picture(1 - scene())
    brighter = picture(scene() + 0.2)
    assert derive_mask(picture(scene()), [negative] * 4) == EVERYTHING
    assert derive_mask(picture(scene()), [brighter] * 4) == EVERYTHING


def test_edits_that_change_other_places_each_have_no_mask() -> None:
    places = [(slice(y, y + 14), slice(x, x + 14)) for y in (0, 20, 45) for x in (0, 20, 45)]
    assert derive_mask(picture(scene()), [edited(place) for place in places]) == DISAGREE


def test_fewer_than_three_edits_that_change_something_have_no_mask() -> None:
    assert derive_mask(picture(scene()), [edited(BOX)] * 2 + [edited()] * 9) == FEW


def test_the_mask_of_a_large_picture_has_its_size_and_is_that_of_the_small_one() -> None:
    def large(image: Image.Image) -> Image.Image:
        return image.resize((4 * SIZE, 4 * SIZE), Image.Resampling.BICUBIC)

    assert 4 * SIZE > SIDE
    mask = derive_mask(large(picture(scene())), [large(edited(BOX))] * 3)
    assert isinstance(mask, Image.Image) and mask.size == (4 * SIZE, 4 * SIZE)
    assert iou(mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)) > 0.75


def test_the_mask_has_the_shape_of_the_source_where_the_edits_have_another_size() -> None:
    wide = picture(scene()).resize((128, 64))
    mask = derive_mask(wide, [edited(BOX)] * 3)
    assert isinstance(mask, Image.Image) and mask.size == (128, 64)
    assert iou(mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)) > 0.75
