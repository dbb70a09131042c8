"""editr1: online reinforcement learning for instruction-based image editors (Edit-R1, arXiv 2510.16888).

The names of `__all__` are the Python API (docs/python.md). Each is imported at its first use, so that `import editr1`
takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from editr1.algorithms.base import Algorithm, Rows
    from editr1.api.calls import open_editor, open_judge, rollout, score
    from editr1.config.loading import load_config
    from editr1.config.settings import Config
    from editr1.data.samples import EditSample
    from editr1.editors.families import FAMILIES
    from editr1.editors.family import Family
    from editr1.errors import UserError
    from editr1.judges.base import JudgeRequest, Score
    from editr1.training.open import open_trainer
    from editr1.training.trainer import Trainer
else:
    _PLACES = {
        "algorithms.base": ("Algorithm", "Rows"),
        "api.calls": ("open_editor", "open_judge", "rollout", "score"),
        "config.loading": ("load_config",),
        "config.settings": ("Config",),
        "data.samples": ("EditSample",),
        "editors.families": ("FAMILIES",),
        "editors.family": ("Family",),
        "errors": ("UserError",),
        "judges.base": ("JudgeRequest", "Score"),
        "training.open": ("open_trainer",),
        "training.trainer": ("Trainer",),
    }

    def __getattr__(name):
        """Import a name of `__all__` (PEP 562)."""
        for module, names in _PLACES.items():
            if name in names:
                return getattr(import_module(f"editr1.{module}"), name)
        raise AttributeError(f"module 'editr1' has no attribute {name!r}")

    def __dir__():
        return [*globals(), *__all__]


__all__ = [
    "FAMILIES",
    "Algorithm",
    "Config",
    "EditSample",
    "Family",
    "JudgeRequest",
    "Rows",
    "Score",
    "Trainer",
    "UserError",
    "load_config",
    "open_editor",
    "open_judge",
    "open_trainer",
    "rollout",
    "score",
]
__version__ = "0.1.0"
