"""The likeness of features outside of masks, by vision models of random weights, against the stock model by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    BitImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Model,
    ViTMAEConfig,
    ViTMAEModel,
)

from editr1.errors import UserError
from editr1.preservation.features import open_likeness
from editr1.preservation.measure import measure_outside, names_of

SIZE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
CPU = torch.device("cpu")


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


def left() -> Image.Image:
    """A mask of the left half."""
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    return mask


def test_it_is_the_cosine_of_the_stock_embeddings_of_the_source_and_of_the_edit_with_the_inside_put_back(
    dino: Path,
) -> None:
    source, edit = picture(0), picture(1)
    merged = edit.copy()
    merged.paste(source.crop((0, 0, 16, 32)), (0, 0))
    model, processor = Dinov2Model.from_pretrained(dino).eval(), BitImageProcessor.from_pretrained(dino)
    with torch.no_grad():
        one, other = model(**processor([source, merged], return_tensors="pt")).pooler_output.double()
    expected = float(one @ other / (one.norm() * other.norm()))
    (measured,) = measure_outside(source, [edit], left(), likeness=open_likeness(str(dino), CPU))
    assert measured.measures["features"] == pytest.approx(expected, abs=1e-6)
    assert abs(expected) < 0.999, "an untouched edit would show nothing"


def test_a_model_is_loaded_once_for_all_evaluations_of_a_process(dino: Path) -> None:
    assert open_likeness(str(dino), CPU) is open_likeness(str(dino), torch.device("cpu"))


def test_what_the_mask_holds_does_not_count_and_the_round_trip_is_measured_alike(dino: Path) -> None:
    source, edit = picture(0), picture(0)
    edit.paste((255, 0, 0), (0, 0, 16, 32))
    (measured,) = measure_outside(source, [edit], left(), picture(2), likeness=open_likeness(str(dino), CPU))
    assert measured.measures["features"] == pytest.approx(1)
    assert measured.measures["ceiling_features"] < 0.999


def test_without_a_model_there_is_no_such_measure() -> None:
    (measured,) = measure_outside(picture(0), [picture(1)], left())
    assert names_of([measured.measures, {}]) == ("psnr", "ssim")


def test_the_vision_part_of_clip_will_do(tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**SIZE, intermediate_size=16)).save_pretrained(tmp_path)
    CLIPImageProcessor(size={"height": 32, "width": 32}, do_center_crop=False).save_pretrained(tmp_path)
    same = np.full((32, 32, 3), 0.25, np.float32)
    assert open_likeness(str(tmp_path), CPU)(same, same) == pytest.approx(1)


def test_no_folder_no_model_and_a_model_without_a_pooled_output_are_one_line(dino: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"features: no folder at .*/nowhere: give a vision model"):
        open_likeness(str(tmp_path / "nowhere"), CPU)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"features: no vision model in .*/empty \("):
        open_likeness(str(tmp_path / "empty"), CPU)
    folder = tmp_path / "mae"
    ViTMAEModel(ViTMAEConfig(**SIZE, intermediate_size=16)).save_pretrained(folder)
    BitImageProcessor.from_pretrained(dino).save_pretrained(folder)
    same = np.zeros((32, 32, 3), np.float32)
    with pytest.raises(UserError, match=r"the ViTMAEModel in .*/mae pools nothing; use DINOv2 or CLIP"):
        open_likeness(str(folder), CPU)(same, same)
