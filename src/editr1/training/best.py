"""The best checkpoint of a run by its held-out evaluations: `checkpoints/best.json` names it, and `keep` spares it.

Training only reads the name; who evaluates writes it (`evaluation/best.py` says which is the best).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editr1.errors import UserError, first_problem, read_json
from editr1.files import write_file

FILE = "best.json"
SUFFIX = "@best"
"""What follows the folder of a run to name its best checkpoint."""
REMEDY = "move it away; the next evaluation of `editr1 train` writes it anew"
Step = Annotated[int, Field(ge=0, lt=10**9)]
Reward = Annotated[float, Field(ge=0, le=1)]
Change = Annotated[float, Field(ge=-1, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Last(_Strict):
    """The last step that was measured, and how it compares with the best one on the items that both have rewards for.

    Attributes:
        step: Steps done.
        reward: Mean held-out reward.
        behind: By how much the best one is better; None without common items.
        ci95: Interval of that.
    """

    step: Step
    reward: Reward
    behind: Change | None
    ci95: Annotated[list[Change], Field(min_length=2, max_length=2)] | None


class Best(_Strict):
    """The best step.

    Attributes:
        step: Steps done.
        reward: Mean held-out reward of the averaged weights.
        gain: Mean change since before training, over the items that have rewards in both; what the best is judged by.
        items: Number of these items.
        last: The last step that was measured; the same one perhaps.
    """

    step: Step
    reward: Reward
    gain: Change
    items: Annotated[int, Field(gt=0)]
    last: Last


def read_best(root: Path) -> Best | None:
    """What is named in the folder of the checkpoints; None if nothing is.

    Raises:
        UserError: The file is damaged.
    """
    file = root / FILE
    if not file.exists():
        return None
    try:
        return Best.model_validate(read_json(file))
    except ValidationError as error:
        raise UserError(f"{file}: damaged: {first_problem(error)}; {REMEDY}") from error
    except UserError as error:
        raise UserError(f"{error}; {REMEDY}") from error


def write_best(root: Path, best: Best) -> None:
    """Name the best checkpoint, whole or not at all."""
    write_file(root / FILE, (json.dumps(best.model_dump(), indent=1) + "\n").encode())


def split_best(path: Path) -> tuple[Path, bool]:
    """The folder of a run, and whether its best checkpoint is meant: RUN@best. A path that is there is only itself."""
    if not path.name.endswith(SUFFIX) or path.exists():
        return path, False
    return Path(str(path).removesuffix(SUFFIX) or "."), True
