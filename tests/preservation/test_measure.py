from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter

from editr1.preservation.measure import (
    NO_MASK,
    NO_OUTSIDE,
    PSNR_MAX,
    TOO_SMALL,
    WHOLE_TASK,
    mask_of,
    measure_outside,
    outside_of,
)
from editr1.preservation.region import EVERYTHING

SIZE = 48


def scene(seed: int = 0) -> np.ndarray:
    """A smooth random picture, [48, 48, 3] in [0, 1]."""
    noise = np.random.default_rng(seed).random((SIZE, SIZE, 3))
    smooth = gaussian_filter(noise, (1.5, 1.5, 0))
    return (smooth - smooth.min()) / (smooth.max() - smooth.min())


def picture(values: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(values, 0, 1) * 255).round().astype(np.uint8))


def levels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, np.float64) / 255


def square(white: int = 255) -> Image.Image:
    """A mask of the picture's upper left quarter."""
    mask = Image.new("L", (SIZE, SIZE))
    mask.paste(white, (0, 0, SIZE // 2, SIZE // 2))
    return mask


def reference_ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The map of Wang et al. (2004) with a Gaussian window of 11x11 and sigma 1.5, by scipy in float64."""

    def mean(x: np.ndarray) -> np.ndarray:
        return gaussian_filter(x, (1.5, 1.5, 0), truncate=5 / 1.5, mode="mirror")

    m, n = mean(a), mean(b)
    v, w, c = mean(a * a) - m * m, mean(b * b) - n * n, mean(a * b) - m * n
    return ((2 * m * n + 1e-4) * (2 * c + 9e-4)) / ((m * m + n * n + 1e-4) * (v + w + 9e-4))


def test_psnr_and_ssim_are_those_of_the_outside_by_an_independent_formula() -> None:
    source = picture(scene())
    noisy = scene() + np.random.default_rng(1).normal(0, 0.03, (SIZE, SIZE, 3))
    noisy[:24, :24] = 0.5  # the edit itself, which must not count
    edit = picture(noisy)
    out = ~mask_of(square(), (SIZE, SIZE))
    measures = outside_of(source, edit, square()).measures
    a, b = levels(source), levels(edit)
    assert measures["psnr"] == pytest.approx(-10 * np.log10(((a - b)[out] ** 2).mean()), abs=1e-4)
    merged = np.where(out[..., None], b, a)
    assert measures["ssim"] == pytest.approx(reference_ssim(merged, a)[out].mean(), abs=2e-3)


def test_what_is_inside_of_the_mask_changes_nothing() -> None:
    source, one, two = scene(), scene() + 0.02, scene() + 0.02
    one[:24, :24], two[:24, :24] = 0, scene(3)[:24, :24]
    measured = measure_outside(picture(source), [picture(one), picture(two)], square())
    assert measured[0] == measured[1] and measured[0].reason is None


def test_equal_pictures_have_the_highest_psnr_and_an_ssim_of_one() -> None:
    assert outside_of(picture(scene()), picture(scene()), square()).measures == {
        "psnr": PSNR_MAX,
        "ssim": pytest.approx(1),
    }


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (-2, 1), (2, -2), (-1, -1)])
def test_an_edit_that_is_shifted_as_a_whole_is_measured_at_its_source(shift: tuple[int, int]) -> None:
    source, moved = picture(scene()), picture(np.roll(scene(), shift, (0, 1)))
    assert outside_of(source, moved, square()).measures["psnr"] == PSNR_MAX
    assert outside_of(source, moved, square()).measures["ssim"] == pytest.approx(1, abs=2e-2)


def test_noise_is_no_shift() -> None:
    edit = picture(scene() + np.random.default_rng(0).normal(0, 0.1, (SIZE, SIZE, 3)))
    a, b, out = levels(picture(scene())), levels(edit), ~mask_of(square(), (SIZE, SIZE))
    psnr = outside_of(picture(scene()), edit, square()).measures["psnr"]
    assert psnr == pytest.approx(-10 * np.log10(((a - b)[out] ** 2).mean()), abs=1e-4)


def test_an_edit_of_another_size_is_measured_beside_the_source_at_that_size() -> None:
    source = picture(scene())
    large = source.resize((96, 96), Image.Resampling.LANCZOS)
    assert outside_of(source, large, square()).measures["psnr"] == PSNR_MAX


def test_a_mask_covers_every_pixel_that_it_has_a_part_in_at_any_size() -> None:
    mask = Image.new("L", (9, 9))
    mask.putpixel((4, 4), 255)
    assert mask_of(mask, (9, 9)).sum() == 1
    assert mask_of(mask, (3, 3)).tolist() == [[False] * 3, [False, True, False], [False] * 3]
    grown = mask_of(mask, (18, 18))
    assert grown[8:10, 8:10].all() and not grown[:6].any()


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(1, 16), st.integers(1, 16), st.data())
def test_one_white_pixel_is_in_every_place_of_a_coarse_mask_that_it_has_a_part_in(
    width: int, height: int, columns: int, rows: int, data: st.DataObject
) -> None:
    columns, rows = min(columns, width), min(rows, height)
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    mask = Image.new("L", (width, height))
    mask.putpixel((x, y), 255)

    def overlaps(place: int, places: int, pixel: int, pixels: int) -> bool:
        start, end = Fraction(place * pixels, places), Fraction((place + 1) * pixels, places)
        return start < pixel + 1 and end > pixel

    expected = [
        [overlaps(j, columns, x, width) and overlaps(i, rows, y, height) for j in range(columns)] for i in range(rows)
    ]
    assert mask_of(mask, (columns, rows)).tolist() == expected


def test_a_mask_may_be_grown_one_way_and_shrunk_the_other() -> None:
    mask = Image.new("L", (4, 64))
    mask.putpixel((1, 9), 255)
    places = mask_of(mask, (8, 4))
    assert places.shape == (4, 8) and places[0, 2:4].all() and not places[1:].any() and not places[0, 6:].any()


def test_what_is_not_measured_has_a_reason_and_no_number() -> None:
    source = picture(scene())
    everything = Image.new("L", (SIZE, SIZE), 255)
    assert [each.reason for each in measure_outside(source, [source] * 2, None)] == [NO_MASK] * 2
    assert measure_outside(source, [source], everything)[0].reason == NO_OUTSIDE
    assert measure_outside(source, [source.resize((10, 20))], square())[0].reason == TOO_SMALL
    assert not measure_outside(source, [source], None)[0].measures


def test_an_edit_of_the_whole_picture_has_its_structure_measured_beside_that_of_the_round_trip() -> None:
    source, everything = picture(scene()), Image.new("L", (SIZE, SIZE), 255)
    edits = [ImageOps.invert(source), Image.new("RGB", source.size, "grey")]
    for mask, missing in ((everything, NO_MASK), (None, WHOLE_TASK), (None, EVERYTHING)):
        restyled, gone = measure_outside(source, edits, mask, source, missing)
        assert restyled.reason == gone.reason == (NO_OUTSIDE if mask else missing)
        assert restyled.measures == {"structure": pytest.approx(1, abs=1e-6), "ceiling_structure": pytest.approx(1)}
        assert gone.measures["structure"] == 0


def test_the_ceiling_is_the_round_trip_measured_alike_and_stands_beside_each_edit() -> None:
    source, trip, edit = picture(scene()), picture(scene() + 0.01), picture(scene() + 0.03)
    (measured,) = measure_outside(source, [edit], square(), trip)
    alone = outside_of(source, trip, square()).measures
    assert {name: measured.measures[f"ceiling_{name}"] for name in alone} == alone
    assert measured.measures["ceiling_psnr"] > measured.measures["psnr"]
