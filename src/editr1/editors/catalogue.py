"""Which pipelines can be trained, which cannot and why, and how long each record is."""

from __future__ import annotations

import ast
import inspect
from typing import Any

from editr1.editors import families as records

UNSUPPORTED = {
    "GlmImagePipeline": "the source reaches the denoiser through a cache that earlier denoiser calls fill and the "
    "pipeline clears, beside tokens that a language model draws at random",
    "DreamLitePipeline": "it fails for more than one edit a call with a source (diffusers 0.42.1 repeats the noise, "
    "not the source)",
    "DreamLiteMobilePipeline": "as DreamLitePipeline",
    "VisualClozePipeline": "it wants a grid of example pairs, not one source and an instruction",
    "ChronoEditPipeline": "it edits by making a video, whose last frame is the edit",
    "StableDiffusionInstructPix2PixPipeline": "its denoiser predicts noise, not a flow-matching velocity",
    "StableDiffusionXLInstructPix2PixPipeline": "its denoiser predicts noise, not a flow-matching velocity",
    "LEditsPPPipelineStableDiffusion": "its denoiser predicts noise; it edits by inverting the source",
    "LEditsPPPipelineStableDiffusionXL": "its denoiser predicts noise; it edits by inverting the source",
}
"""Editing pipelines of diffusers that are not supported, and why."""


def catalogue() -> list[dict[str, Any]]:
    """One row a pipeline: family, pipeline, supported, reason, lines, source_images (None: any number)."""
    lines = record_lines()
    rows: list[dict[str, Any]] = [
        {
            "family": family.name,
            "pipeline": family.pipeline,
            "supported": True,
            "reason": None,
            "lines": lines[family.pipeline],
            "source_images": family.sources,
        }
        for family in records.RECORDS
    ]
    unsupported = {"family": None, "supported": False, "lines": None, "source_images": None}
    return rows + [{**unsupported, "pipeline": name, "reason": reason} for name, reason in UNSUPPORTED.items()]


def record_lines() -> dict[str, int]:
    """Lines of code of each record by its pipeline, the functions that it alone uses included."""
    tree = ast.parse(inspect.getsource(records))
    functions = {node.name: _length(node) for node in tree.body if isinstance(node, ast.FunctionDef)}
    lines = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            keywords = {keyword.arg: keyword.value for keyword in node.value.keywords}
            used = [value.id for value in keywords.values() if isinstance(value, ast.Name) and value.id in functions]
            lines[ast.literal_eval(keywords["pipeline"])] = _length(node) + sum(functions[name] for name in used)
    return lines


def _length(node: ast.stmt) -> int:
    assert node.end_lineno is not None, "parsed from text"
    return node.end_lineno - node.lineno + 1
