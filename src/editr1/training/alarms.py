"""What is wrong with a run, from its rows of metrics.jsonl alone: a pure function per alarm; their numbers are here.

The console tells an alarm when it first sounds, the report lists all that sounded. The numbers were set on recorded
runs of the toy world: none sounds on a healthy one (a test holds a recorded run against them).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, pvariance

from editr1.training.step_row import StepRow, groups_made

WINDOW = 10  # rows that stand for the start, or for now
RECENT = 30  # rows that any alarm reads, besides those of the start
FALLS = {1: (0.25, 3.5), 3: (0.5, 3.0), 5: (0.5, 3.0)}
"""By number of last steps: their mean is below this share of the earlier one, by more than these standard errors."""
FALL = 0.02  # of what is watched
WORN = 1.0  # dB that PSNR outside of the masks has fallen by
CERTAIN = 3.5  # standard errors that a drift must exceed
GAIN = 2.0  # standard errors that a gain must exceed to count
DRIFTS = {"latent_norm": 0.15, "brightness": 0.1, "saturation": 0.15, "sharpness": 0.02, "source_distance": 0.1}
CONSTANT, CONSTANT_ROWS = 1e-3, 3  # spread of the rewards in a group, and rows with less
KEPT, KEPT_ROWS = 0.1, 5  # share of groups kept, and rows over which it is taken
CLIPPED_ROWS = 20  # rows with a clipped gradient, all in a row
REMEDIES = {
    "no_reward": "More than half of the edits of each have no reward: mend the judge.",
    "agree_and_high": "By algorithm.filter=paper their items are solved: take harder ones, or set another filter.",
    "high": "By algorithm.filter=released their items are solved: take harder ones, or raise algorithm.tau_mu.",
    "no_spread": "By algorithm.filter=released their edits are equally good: see with `editr1 judge score` whether the "
    "judge tells edits apart, or lower algorithm.tau_sigma.",
}
"""What to do, by the reason for which most groups are dropped (`algorithms/advantages.py`)."""

Rows = Sequence[StepRow]


@dataclass(frozen=True)
class Alarm:
    """Something that is wrong with a run.

    Attributes:
        name: Short name; a kind of alarm has one.
        text: What was seen, and what to do, in a sentence or two.
    """

    name: str
    text: str


def item_noise(rows: Rows) -> float:
    """Standard deviation of a step's mean reward that comes from its items, as the spread of the rewards shows it.

    The variance between items is what the spread of all edits has more than that within groups. Where groups are too
    few to tell, it is at least a quarter of all.
    """
    variances = []
    for row in rows:
        spread, within = row.get("reward_std_all"), row.get("reward_std_within")
        groups = groups_made(row)
        if spread is not None and within is not None:
            between = max(spread**2 - within**2, 0.0) * groups / max(groups - 1, 1)
            variances.append(max(between, spread**2 / 4) / groups)
    return math.sqrt(fmean(variances)) if variances else math.inf


def sounding(rows: Rows, grad_clip: float) -> list[Alarm]:
    """The alarms that sound after the last of the rows; `grad_clip` is the run's `optim.grad_clip`."""
    start, recent = rows[:WINDOW], rows[-RECENT:]
    alarms = [rule(start, recent) for rule in RULES] + [clipped(recent, grad_clip)]
    return [alarm for alarm in alarms if alarm is not None]


Heard = tuple[int, int, Alarm]
"""An alarm with the first and the last step at which it sounded, as it was first told."""


def sounded(rows: Rows, grad_clip: float, before: Sequence[Heard] = (), done: int = 0) -> list[Heard]:
    """Every alarm that sounded in a run, in the order of the steps; `before` are those of its first `done` rows."""
    seen = {alarm.name: (first, last, alarm) for first, last, alarm in before}
    for end in range(done + 1, len(rows) + 1):
        head = rows[: min(end, WINDOW)]
        window = [*head, *rows[max(WINDOW, end - RECENT) : end]] if end > WINDOW else head
        for alarm in sounding(window, grad_clip):
            first, _, told = seen.get(alarm.name, (rows[end - 1]["step"], 0, alarm))
            seen[alarm.name] = first, rows[end - 1]["step"], told
    return list(seen.values())


def collapsed(start: Rows, recent: Rows) -> Alarm | None:
    """The mean reward of the last steps, or of the very last one, is far below that of the start or of earlier steps.

    Far is what `FALLS` says, so that a step of hard items is no alarm.
    """
    for count, (share, certain) in FALLS.items():
        now, earlier = recent[-count:], recent[-count - WINDOW : -count]
        first = [row for row in start if row["step"] < now[0]["step"]]
        for before in (earlier, first, first[:1]):  # the first step alone: the fall may be in the second
            was, mean = _mean(before, "reward_mean"), _mean(now, "reward_mean")
            if was is None or mean is None or len(now) < count:
                continue
            error = item_noise(before) * math.sqrt(1 / count + 1 / len(before))
            if mean < share * was and was - mean > certain * error:
                return Alarm(
                    "reward collapsed",
                    f"The mean reward fell from {was:.2f} to {mean:.2f}. The weights are likely ruined: go back to an "
                    "earlier checkpoint, or start anew with a lower optim.lr or a higher algorithm.kl.",
                )
    return None


def drifting(start: Rows, recent: Rows) -> Alarm | None:
    """How edits differ from their sources has changed clearly since the start, and the reward has not risen."""
    now = [row for row in recent[-WINDOW:] if row["step"] > start[-1]["step"]]
    if len(now) < WINDOW:
        return None
    gain, error = difference(values_of(start, "reward_mean"), values_of(now, "reward_mean"))
    if gain > GAIN * error or error == math.inf:
        return None
    if not (words := drifted(start, now)):
        return None
    return Alarm(
        "drift without gain",
        f"The edits have changed since the start ({words}) and the reward has not risen. Look at the samples: the "
        "judge may be exploited. Raise algorithm.kl or lower optim.lr.",
    )


def parting(start: Rows, recent: Rows) -> Alarm | None:
    """The reward has risen since the start, and what is watched has clearly fallen."""
    now = [row for row in recent[-WINDOW:] if row["step"] > start[-1]["step"]]
    gain, error = difference(values_of(start, "reward_mean"), values_of(now, "reward_mean"))
    if len(now) < WINDOW or gain <= GAIN * error:
        return None
    watched = [[row.get("watched") or {} for row in rows] for rows in (start, now)]
    for name in dict.fromkeys(name for row in watched[1] for name in row):
        fall, error = difference(*(values_of(rows, name) for rows in watched))
        if -fall > max(FALL, CERTAIN * error):
            return Alarm(
                "watched score falls",
                f"The reward has risen by {gain:.2f} since the start, the watched {name} has fallen by {-fall:.2f}. "
                "The judge is likely exploited. Look at the samples, go back to an earlier checkpoint, and raise "
                "algorithm.kl or mix the second judge into the reward (rewards).",
            )
    return None


def wearing(start: Rows, recent: Rows) -> Alarm | None:
    """What must not change is kept clearly less than at the start."""
    now = [row for row in recent[-WINDOW:] if row["step"] > start[-1]["step"]]
    if len(now) < WINDOW:
        return None
    fall, error = difference(*(values_of([row.get("outside") or {} for row in rows], "psnr") for rows in (start, now)))
    if -fall <= max(WORN, CERTAIN * error):
        return None
    return Alarm(
        "more is changed than was asked",
        f"PSNR outside of the masks has fallen by {-fall:.1f} dB since the start. Look at the samples; reward what is "
        "kept with +preserve (with a larger rewards.kept.weight if it is there), or raise algorithm.kl.",
    )


def drifted(before: Rows, now: Rows, grown: float = 1.0) -> str:
    """What has clearly changed of the edits, each by `grown` times what `DRIFTS` says, in words; empty if nothing."""
    moved = []
    for name, limit in DRIFTS.items():
        change, error = difference(_drift(before, name), _drift(now, name))
        if abs(change) > max(grown * limit, CERTAIN * error):
            moved.append(f"{name.replace('_', ' ')} {change:+.2f}")
    return ", ".join(moved)


def constant(start: Rows, recent: Rows) -> Alarm | None:
    """All edits of a group get the same reward, for some steps in a row."""
    rows = recent[-CONSTANT_ROWS:]
    return constant_in(rows) if len(rows) == CONSTANT_ROWS else None


def constant_in(rows: Rows) -> Alarm | None:
    """As `constant`, in all of these rows."""
    spread = [row.get("reward_std_within") for row in rows]
    if not spread or any(value is None or value >= CONSTANT for value in spread):
        return None
    return Alarm(
        "constant reward",
        f"All edits of a group got the same reward in the last {len(rows)} steps, so there is nothing to learn "
        "from. See with `editr1 judge score` whether the judge tells edits apart.",
    )


def few_kept(start: Rows, recent: Rows) -> Alarm | None:
    """Hardly any group is trained on."""
    rows = recent[-KEPT_ROWS:]
    return few_kept_in(rows) if len(rows) == KEPT_ROWS else None


def few_kept_in(rows: Rows) -> Alarm | None:
    """As `few_kept`, over all of these rows."""
    kept = sum(row["groups_kept"] for row in rows)
    dropped = sum((Counter(row["dropped"]) for row in rows), Counter[str]())
    if not dropped or kept >= KEPT * (kept + dropped.total()):
        return None
    reason, count = dropped.most_common(1)[0]
    return Alarm(
        "hardly any group kept",
        f"Of the last {kept + dropped.total()} groups {kept} were trained on; {count} were dropped for "
        f"{reason.replace('_', ' ')}. {REMEDIES.get(reason, 'Set algorithm.filter.')}",
    )


def clipped(recent: Rows, grad_clip: float) -> Alarm | None:
    """The gradient is clipped in every step."""
    norms = [row["grad_norm"] for row in recent if row.get("grad_norm") is not None][-CLIPPED_ROWS:]
    if len(norms) < CLIPPED_ROWS or min(norms) <= grad_clip:
        return None
    return Alarm(
        "gradient always clipped",
        f"The gradient was clipped in each of the last {CLIPPED_ROWS} steps (norm {fmean(norms):.2g}, limit "
        f"{grad_clip:g}), so the steps have one length whatever the loss says. Raise optim.grad_clip.",
    )


RULES: tuple[Callable[[Rows, Rows], Alarm | None], ...] = (collapsed, drifting, parting, wearing, constant, few_kept)


def difference(before: Sequence[float], now: Sequence[float]) -> tuple[float, float]:
    """Difference of two means and its standard error, from the spread over the steps."""
    if len(before) < 2 or len(now) < 2:
        return 0.0, math.inf
    error = math.sqrt(sum(pvariance(values) / (len(values) - 1) for values in (before, now)))
    return fmean(now) - fmean(before), error


def values_of(rows: Rows, key: str) -> list[float]:
    """The numbers of a column, those that there are."""
    return [row[key] for row in rows if row.get(key) is not None]


def _drift(rows: Rows, name: str) -> list[float]:
    return values_of([row.get("drift") or {} for row in rows], name)


def _mean(rows: Rows, key: str) -> float | None:
    values = values_of(rows, key)
    return fmean(values) if values else None
