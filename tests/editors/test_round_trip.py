from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from editr1.editors.open import open_named_editor
from editr1.editors.round_trip import round_trip
from editr1.toy.world import ToyDataset


@pytest.mark.parametrize("name", ["toy:qwen-image-edit", "toy:flux-kontext"])
def test_the_round_trip_is_what_the_pipelines_own_processor_makes_of_the_vae(name: str) -> None:
    pipe = open_named_editor(name, None, device=torch.device("cpu")).pipe
    source = ToyDataset("heldout", 1)[0].source
    trip = round_trip(pipe, source, (64, 64))
    with torch.no_grad():
        x = pipe.image_processor.preprocess(source, 64, 64)
        is_video = name == "toy:qwen-image-edit"
        decoded = pipe.vae.decode(pipe.vae.encode(x[:, :, None] if is_video else x).latent_dist.mode()).sample
        expected = pipe.image_processor.postprocess(decoded[:, :, 0] if is_video else decoded)[0]
    assert trip is not None and trip.size == (64, 64)
    assert np.abs(np.asarray(trip, int) - np.asarray(expected, int)).max() <= 1
    assert np.abs(np.asarray(trip, int) - np.asarray(source, int)).mean() < 10, "it shows the source"


def test_the_round_trip_has_the_size_that_is_asked_for() -> None:
    pipe = open_named_editor("toy:qwen-image-edit", None, device=torch.device("cpu")).pipe
    trip = round_trip(pipe, Image.new("RGB", (40, 20), "red"), (32, 64))
    assert trip is not None and trip.size == (32, 64)
