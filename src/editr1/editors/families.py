"""What differs between editors: one record per diffusers pipeline class. Everything else is the same for all of them.

What all records share, so that it is no field: the denoiser is `pipe.transformer`, called with keyword arguments; it
takes the target tokens, followed by the source tokens, as `hidden_states` and the time t in [0, 1] as `timestep`; it
predicts the velocity eps - x0 for every token.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from editr1.data import EditSample

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one pipeline class is called, and how its denoiser call is taken apart.

    Attributes:
        name: short name for people.
        pipeline: class name, as in model_index.json.
        call: (sample, width and height of the edit or None for the pipeline's own, guidance) -> pipeline's arguments.
        batch_args: arguments of the denoiser with a batch dimension, besides tokens and time; each may be None.
        multiple: width and height of source and edit are multiples of this.
        source_areas: constants in the pipeline's module that fix the area, in pixels, of the encoded source.
        preview_areas: likewise for the copy that a text encoder sees; never enlarged.
        lora_targets: names of the modules that get a LoRA, as the published recipe chose them.
        guidance: the default where guidance is an input of the denoiser; None where the editor has none.
    """

    name: str
    pipeline: str
    call: Callable[[EditSample, Size | None, float | None], dict[str, Any]]
    batch_args: tuple[str, ...]
    multiple: int
    source_areas: tuple[str, ...] = ()
    preview_areas: tuple[str, ...] = ()
    lora_targets: tuple[str, ...]
    guidance: float | None = None


def _call_qwen_edit(sample: EditSample, size: Size | None, guidance: float | None) -> dict[str, Any]:
    width, height = size or (None, None)
    return {
        "image": sample.source.convert("RGB"),
        "prompt": sample.instruction,
        "width": width,
        "height": height,
        "true_cfg_scale": 1.0,
    }


QWEN_IMAGE_EDIT_PLUS = Family(
    name="qwen-image-edit-plus",
    pipeline="QwenImageEditPlusPipeline",
    call=_call_qwen_edit,
    batch_args=("encoder_hidden_states", "encoder_hidden_states_mask", "guidance"),
    multiple=32,
    source_areas=("VAE_IMAGE_SIZE",),
    preview_areas=("CONDITION_IMAGE_SIZE",),
    lora_targets=(
        *("to_q", "to_k", "to_v", "to_out.0"),
        *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
    ),
)

FAMILIES = {family.pipeline: family for family in (QWEN_IMAGE_EDIT_PLUS,)}
