"""Where a LoRA lies: its files' names, and the one in a folder."""

from __future__ import annotations

from pathlib import Path

from editr1.errors import UserError

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


def find_file(path: Path) -> Path:
    """The weights file: `path` itself, or the one in that folder."""
    if path.is_file():
        return path
    files = sorted(path.glob("*.safetensors"))
    named = [file for file in files if file.name in (PEFT_FILE, DIFFUSERS_FILE)]
    if len(named or files) == 1:
        return (named or files)[0]
    raise UserError(
        f"{path}: no LoRA there; give a .safetensors file, a folder with exactly one, or a checkpoint of `editr1 train`"
    )
