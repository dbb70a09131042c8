"""What an edit of the whole picture keeps of its source's structure."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude

from editr1.preservation.registration import pixels_of
from editr1.preservation.structure import WIDTH, edges, structure


def scene(moved: int = 0, seed: int = 0) -> Image.Image:
    """A box and a disc on a ground of soft colours; the disc may be `moved` to the right."""
    rng = np.random.default_rng(seed)
    values = 0.4 + 0.1 * gaussian_filter(rng.random((96, 96, 3)), (3, 3, 0))
    values[12:40, 10:44] = (0.9, 0.6, 0.5)
    rows, columns = np.mgrid[:96, :96]
    values[(rows - 64) ** 2 + (columns - 40 - moved) ** 2 < 18**2] = (0.1, 0.1, 0.3)
    return Image.fromarray((values * 255).astype(np.uint8))


@pytest.mark.parametrize(
    "restyled",
    [
        lambda picture: picture,
        ImageOps.invert,
        ImageOps.grayscale,
        lambda picture: Image.blend(picture, Image.new("RGB", picture.size, "grey"), 0.6),
        lambda picture: Image.fromarray(np.roll(np.asarray(picture), (1, -2), (0, 1))),
        lambda picture: picture.resize((192, 192)),
    ],
    ids=["same", "inverted", "grey", "less contrast", "shifted", "another size"],
)
def test_a_style_that_leaves_all_things_in_place_keeps_the_structure(restyled: object) -> None:
    assert callable(restyled)
    kept = structure(scene(), restyled(scene()).convert("RGB"))
    assert kept is not None and kept > 0.93


def test_the_more_things_are_gone_or_elsewhere_the_less_is_kept() -> None:
    gone = scene()
    gone.paste((115, 115, 115), (10, 12, 44, 40))
    kept = [structure(scene(), each) for each in (scene(), scene(moved=3), gone, Image.new("RGB", (96, 96), "grey"))]
    same, moved, without_box, nothing = (value for value in kept if value is not None)
    assert same == pytest.approx(1, abs=1e-6)
    assert 0.5 < moved < 0.9 and 0.5 < without_box < 0.9 and nothing < 0.1


def test_strokes_that_are_added_cost_little_beside_edges_that_are_lost() -> None:
    values = np.asarray(scene(), np.float32) / 255
    strokes = values + 0.04 * np.sin(np.arange(96) * 1.2)[None, :, None]
    kept = structure(scene(), Image.fromarray((strokes.clip(0, 1) * 255).astype(np.uint8)))
    lost = structure(Image.fromarray((strokes.clip(0, 1) * 255).astype(np.uint8)), Image.new("RGB", (96, 96), "grey"))
    assert kept is not None and lost is not None and kept > 0.8 > 0.1 > lost


def test_a_source_without_edges_has_no_structure() -> None:
    assert structure(Image.new("RGB", (96, 96), "grey"), scene()) is None


def test_edges_are_the_gaussian_gradients_of_scipy() -> None:
    picture = pixels_of(scene(), (96, 96))
    expected = np.sqrt(np.mean([gaussian_gradient_magnitude(picture[..., c], WIDTH) ** 2 for c in range(3)], axis=0))
    assert edges(picture) == pytest.approx(expected, abs=1e-6)
