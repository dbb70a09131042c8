"""CLIP and SigLIP rewards on tiny random models, against the stock model called by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
)

from editr1.config.rewards import ClipKind
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.rewards.clip import ClipReward
from tests.tiny import build_tokenizer

SIZE = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(str(request.param))
    tokenizer = build_tokenizer()
    text = {**SIZE, "vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 16}
    text |= dict.fromkeys(("eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
    vision = {**SIZE, "image_size": 32, "patch_size": 8}
    size = {"height": 32, "width": 32}
    torch.manual_seed(0)
    if request.param == "clip":
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
        processor = CLIPProcessor(CLIPImageProcessor(size=size, crop_size=size), tokenizer)
    else:
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
        processor = SiglipProcessor(SiglipImageProcessor(size=size), tokenizer)
    model.save_pretrained(path)
    processor.save_pretrained(path)
    return path


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))


REQUESTS = [
    JudgeRequest(EditSample("", picture(0), "remove the cat", "the dog" * (i % 2)), picture(1 + i)) for i in range(3)
]


def unit(features: object) -> np.ndarray:
    tensor = features if isinstance(features, torch.Tensor) else features.pooler_output  # type: ignore[attr-defined]
    values = tensor.double().numpy()[0]
    return values / np.linalg.norm(values)


@torch.no_grad()
def test_values_are_the_cosines_of_the_stock_model(folder: Path) -> None:
    image, direction = (ClipReward(folder, kind=kind) for kind in ("clip_image", "clip_direction"))
    model, processor = image.model, image.processor
    for request, like, toward in zip(REQUESTS, image.score(REQUESTS), direction.score(REQUESTS), strict=True):
        edit, source = (
            unit(model.get_image_features(processor(images=[one], return_tensors="pt")["pixel_values"]))
            for one in (request.edit, request.sample.source)
        )
        sample = request.sample
        words = processor(
            text=[sample.requirement or sample.instruction], padding="max_length", max_length=16, return_tensors="pt"
        )
        text = unit(model.get_text_features(**words))
        assert like.value == pytest.approx((1 + edit @ source) / 2, abs=1e-5)
        assert toward.value == pytest.approx((1 + edit @ text - source @ text) / 2, abs=1e-5)


def test_an_untouched_source_is_wholly_alike_and_moves_nowhere(folder: Path) -> None:
    same = [JudgeRequest(EditSample("", picture(0), "remove the cat"), picture(0))]
    assert ClipReward(folder, kind="clip_image").score(same)[0].value == pytest.approx(1.0, abs=1e-6)
    assert ClipReward(folder, kind="clip_direction").score(same)[0].value == pytest.approx(0.5, abs=1e-6)


def test_a_folder_without_such_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder at"):
        ClipReward(tmp_path / "none", kind="clip_image")
    with pytest.raises(UserError, match="no CLIP or SigLIP model"):
        ClipReward(tmp_path, kind="clip_image")


@pytest.mark.parametrize("kind", ["clip_image", "clip_direction"])
def test_references_change_no_cosine(folder: Path, kind: ClipKind) -> None:
    reward = ClipReward(folder, kind=kind)
    several = [replace(one, sample=replace(one.sample, references=(picture(9),))) for one in REQUESTS]
    assert reward.score(several) == reward.score(REQUESTS)
