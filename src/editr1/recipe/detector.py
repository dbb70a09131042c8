"""Boxes found by an object detector of transformers, in a folder on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL.Image import Image
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from editr1.errors import UserError, first_line
from editr1.judges.models.local import LOCAL
from editr1.model_files import refuse_devices, weight_files
from editr1.recipe.boxes import Box, clamped


class Detector:
    """Finds objects in pictures; nothing is downloaded, no foreign code is run, no pickle is loaded.

    Args:
        folder: Folder of safetensors weights, config and image processor.
        device: Device of the model.
        least: Probability from which on an object counts.

    Raises:
        UserError: There is no such model in the folder, or a part of its weights is missing.
    """

    def __init__(self, folder: Path, device: torch.device | str = "cpu", least: float = 0.5) -> None:
        if not folder.is_dir():
            raise UserError(f"--detector: no folder at {folder}: give the folder of an object detector")
        refuse_devices(folder, f"--detector {folder}")
        weight_files(folder)
        try:
            self.processor = AutoImageProcessor.from_pretrained(str(folder), **LOCAL)
            model, info = AutoModelForObjectDetection.from_pretrained(
                str(folder), use_safetensors=True, output_loading_info=True, **LOCAL
            )
        except Exception as error:  # the libraries raise whatever they stumble over in a stranger's files
            raise UserError(
                f"--detector: no object detector in {folder} ({first_line(error)}): copy its config, image processor "
                "and safetensors files there"
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise UserError(f"--detector: the weights in {folder} lack {missing[0]!r}: copy all safetensors files")
        self.name, self.least = folder.resolve().name, least
        self.model = model.to(device).eval()

    @torch.inference_mode()
    def __call__(self, picture: Image) -> list[Box]:
        """The objects in a picture, the likeliest first."""
        inputs = self.processor(images=picture, return_tensors="pt").to(self.model.device)
        sizes = [(picture.height, picture.width)]
        (found,) = self.processor.post_process_object_detection(
            self.model(**inputs), threshold=self.least, target_sizes=sizes
        )
        order = found["scores"].argsort(descending=True, stable=True)
        names = [self.model.config.id2label[int(label)] for label in found["labels"][order]]
        boxes = (
            clamped(name, ends, *picture.size)
            for name, ends in zip(names, found["boxes"][order].double().tolist(), strict=True)
        )
        return [box for box in boxes if box is not None]
