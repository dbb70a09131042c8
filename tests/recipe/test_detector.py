"""A detector in a folder: a tiny YOLOS with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image as Images
from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

from editr1.errors import UserError
from editr1.recipe.detector import Detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=[32, 32],
        patch_size=8, num_detection_tokens=5, id2label={0: "cat", 1: "dog"}, label2id={"cat": 0, "dog": 1},
    )  # fmt: skip
    path = tmp_path_factory.mktemp("detector")
    YolosForObjectDetection(config).save_pretrained(path)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(path)
    return path


def test_boxes_are_those_of_the_model_the_likeliest_first(folder: Path) -> None:
    picture = Images.radial_gradient("L").convert("RGB").resize((48, 24))
    boxes = Detector(folder, least=0.0)(picture)
    model = YolosForObjectDetection.from_pretrained(folder).eval()
    inputs = YolosImageProcessor.from_pretrained(folder)(images=picture, return_tensors="pt")
    with torch.inference_mode():
        output = model(**inputs)
    scores, labels = output.logits[0].softmax(-1)[:, :-1].max(-1)
    order = scores.argsort(descending=True)
    centres = output.pred_boxes[0][order].double()
    expected = torch.cat([centres[:, :2] - centres[:, 2:] / 2, centres[:, :2] + centres[:, 2:] / 2], 1).clamp(0, 1)
    assert [box.label for box in boxes] == [("cat", "dog")[int(label)] for label in labels[order]]
    assert [box.box for box in boxes] == [pytest.approx(row, abs=1e-4) for row in expected.tolist()]
    assert Detector(folder, least=1.0)(picture) == []


def test_what_is_no_detector_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at"):
        Detector(tmp_path / "none")
    with pytest.raises(UserError, match="holds no safetensors file"):
        Detector(tmp_path)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no object detector in"):
        Detector(tmp_path)
