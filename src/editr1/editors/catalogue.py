"""Which pipelines can be trained, and which cannot and why."""

from __future__ import annotations

from typing import Any

from editr1.editors.families import RECORDS

UNSUPPORTED = {
    "GlmImagePipeline": "the source reaches the denoiser through a cache that earlier denoiser calls fill and the "
    "pipeline clears, beside tokens that a language model draws at random",
    "DreamLitePipeline": "it fails for more than one edit per call with a source (diffusers 0.42.1 repeats the noise, "
    "not the source)",
    "DreamLiteMobilePipeline": "as DreamLitePipeline",
    "VisualClozePipeline": "it takes a grid of example pairs, not one source and an instruction",
    "ChronoEditPipeline": "it edits by making a video, whose last frame is the edit",
    "StableDiffusionInstructPix2PixPipeline": "its denoiser predicts noise, not a flow-matching velocity",
    "StableDiffusionXLInstructPix2PixPipeline": "its denoiser predicts noise, not a flow-matching velocity",
    "LEditsPPPipelineStableDiffusion": "its denoiser predicts noise; it edits by inverting the source",
    "LEditsPPPipelineStableDiffusionXL": "its denoiser predicts noise; it edits by inverting the source",
}
"""Editing pipelines of diffusers that are not supported, and why."""


def catalogue() -> list[dict[str, Any]]:
    """One row per pipeline: family, pipeline, supported, reason, source_images (None: any number)."""
    rows: list[dict[str, Any]] = [
        {"family": f.name, "pipeline": f.pipeline, "supported": True, "reason": None, "source_images": f.sources}
        for f in RECORDS
    ]
    unsupported = {"family": None, "supported": False, "source_images": None}
    return rows + [{**unsupported, "pipeline": name, "reason": reason} for name, reason in UNSUPPORTED.items()]
