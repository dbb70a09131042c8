"""Whether items can have the masks that a run measures or rewards by, as far as its settings and its data tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from editr1.config.rewards import PreservationConfig
from editr1.config.settings import Config
from editr1.config.watching import KeptConfig
from editr1.data.samples import ItemLine
from editr1.preservation.region import EDITS_MIN


@dataclass(frozen=True)
class Masks:
    """How many items have masks of their own.

    Attributes:
        given: Of those that were looked at.
        seen: Items that were looked at; 0 if none could be.
        complete: Whether these are all items.
    """

    given: int = 0
    seen: int = 0
    complete: bool = False

    @property
    def none(self) -> bool:
        """Whether no item that was looked at has one."""
        return self.seen > 0 and self.given == 0


def masks_in(lines: Sequence[ItemLine], items: int) -> Masks:
    """What the lines that were looked at tell, of so many items."""
    return Masks(sum(line.mask is not None for line in lines), len(lines), len(lines) == items)


def mask_users(config: Config) -> dict[str, KeptConfig | PreservationConfig]:
    """The parts of a run that look for masks, by dotted key."""
    users: dict[str, KeptConfig | PreservationConfig] = {
        f"rewards.{name}": own
        for name, own in config.rewards.items()
        if isinstance(own, PreservationConfig) and own.masks != "edit"
    }
    return users if config.preservation is None else {**users, "preservation": config.preservation}


def masks_shown(config: Config) -> KeptConfig | PreservationConfig | None:
    """The part whose masks the pictures of samples outline: `preservation`, else the first reward that has any."""
    return config.preservation or next(iter(mask_users(config).values()), None)


def faults_of_masks(config: Config, masks: Masks) -> Iterator[tuple[str, bool]]:
    """What keeps items from having masks, one line each, and whether it is sure that none can have one."""
    size = config.rollout.group_size
    for place, own in mask_users(config).items():
        if own.masks == "data":
            if masks.none:
                count = f"none of {masks.seen} items has a mask" if masks.complete else "no item looked at has a mask"
                yield f'{place}.masks="data": {count}; give masks in the data, or set it to "either"', masks.complete
        elif size < EDITS_MIN and (own.masks == "group" or masks.given < masks.seen or not masks.complete):
            group = own.masks == "group"
            whose, remedy = ("", 'set masks to "data"') if group else ("for items without one ", "give all items masks")
            yield (
                f'{place}.masks="{own.masks}": a mask {whose}is derived from {EDITS_MIN} edits or more, and '
                f"rollout.group_size={size}; raise it, or {remedy}",
                group or (masks.none and masks.complete),
            )
