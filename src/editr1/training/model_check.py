"""What only diffusers and transformers can tell of a run before its weights are loaded.

They take seconds to import, so `preflight` comes first and does without them.
"""

from __future__ import annotations

from editr1.config.settings import Config, EditorConfig
from editr1.data.samples import StoredDataset
from editr1.editors.open import check_loading
from editr1.editors.text_limit import find_long
from editr1.judges.open import check_processor
from editr1.training.preflight import Findings


def check_models(config: Config, findings: Findings) -> None:
    """Add faults of the editor's class and number format, and of the processors of judges in this process.

    Also those of instructions that are longer than the editor takes.
    """
    with findings.part("editor"):
        check_loading(config.editor, config.memory, config.parallel.context)
    for name, dataset in findings.data.items():
        with findings.part(name) as faults:
            faults += long_instructions(dataset, config.editor)
    for name, judge in config.judges.items():
        with findings.part(name):
            check_processor(judge)


def long_instructions(dataset: StoredDataset, editor: EditorConfig) -> list[str]:
    """One line for each item whose instruction is longer than the editor's text encoder takes."""
    faults = find_long(editor, dataset.instructions)
    return [f"item {key!r}: instruction: {fault}" for key, fault in faults.items()]
