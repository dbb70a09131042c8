"""What only diffusers and transformers can tell of a run before its weights are loaded.

They take seconds to import, so `preflight` comes first and does without them.
"""

from __future__ import annotations

from editr1.config.rewards import JudgeRewardConfig
from editr1.config.settings import Config
from editr1.editors.open import check_loading
from editr1.judges.open import check_processor
from editr1.training.preflight import Findings


def check_models(config: Config, findings: Findings) -> None:
    """Add faults of the editor's class and number format, and of the processors of judges in this process."""
    with findings.part("editor"):
        check_loading(config.editor, config.memory, config.parallel.context)
    others = {
        f"rewards.{name}": own.judge for name, own in config.rewards.items() if isinstance(own, JudgeRewardConfig)
    }
    for name, judge in {"judge": config.judge, **others}.items():
        if judge is not None:
            with findings.part(name):
                check_processor(judge)
