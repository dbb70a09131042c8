"""What the rows of a run say about it: a pure function per diagnosis, from a `Case` to a `Finding` or None.

What the console tells during training (`training/alarms.py`) is said in the same words. The other diagnoses are in the
table `DIAGNOSES`; none of them but notes speaks on the recorded healthy runs of the tests.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, median
from typing import Any

from editr1.algorithms.base import find_algorithms
from editr1.evaluation.paired import FEW
from editr1.report.best import best_words, is_behind
from editr1.report.doctor.case import Case, Finding, change_of, groups_of
from editr1.report.text import signed
from editr1.training.alarms import (
    CERTAIN,
    CONSTANT,
    CONSTANT_ROWS,
    FALL,
    GAIN,
    KEPT_ROWS,
    RECENT,
    WINDOW,
    constant_in,
    drifted,
    few_kept_in,
    sounded,
    values_of,
)
from editr1.training.best import SUFFIX
from editr1.training.self_check import silence
from editr1.training.step_row import lacking

FAILED = 0.01  # share of edits without a reward
TIED = 0.5  # share of pairs of edits
ONE_TASK, FEW_GROUPS = 0.75, 20  # share of the groups that are trained on, and how many say something
GROWN = 2.0  # a drift beside a gain, as a multiple of what is an alarm without one
SPACING = {"float32": 2**-23, "bfloat16": 2**-7}  # between neighbouring numbers, relative
SEEN, UPDATES = 2**-8, 20  # change of a velocity, and updates after which it is smaller without a reason
EARLY = 10  # rows of a run whose first steps are still of interest
SLOW = 0.2  # share of a step in which only the judge works
COUNTED = re.compile(r"(\d+) x (.*)", re.DOTALL)

CURES = {
    "timeout": "raise judge.timeout, or lower judge.in_flight",
    "HTTP 429": "lower judge.in_flight, or name more judge.endpoints",
    "HTTP 401": "set the key in the variable that judge.api_key_env names",
    "did not list": "use a server that gives log-probabilities of named tokens (vLLM), or a coarser judge.scale",
    "likeliest tokens": "use a server that gives log-probabilities of named tokens (vLLM), or another judge.template",
    "no answer": "look at the server's log, or name more judge.endpoints",
    "the answer": "use a method that reads log-probabilities (judge.method=score_logit), or another judge.template",
}
"""By what a reason for no reward says, what to do; the first that fits."""


def diagnose(case: Case) -> list[Finding]:
    """All that there is to say about a run: what is wrong first."""
    found = [*told_alarms(case), *(finding for rule in DIAGNOSES if (finding := rule(case)) is not None)]
    return sorted(found, key=lambda finding: not finding.wrong)


def told_alarms(case: Case) -> Iterator[Finding]:
    """The alarms of the run; one that has fallen silent is a note."""
    for first, last, alarm in sounded(case.rows, case.config["optim"]["grad_clip"]):
        steps = f"step {first}" if first == last else f"steps {first} to {last}"
        yield Finding(alarm.name, f"({steps}) {alarm.text}", last == case.rows[-1]["step"])


def early_alarms(case: Case) -> Finding | None:
    """What is an alarm after some steps has been so in all of a run that has fewer."""
    few = ((CONSTANT_ROWS, constant_in), (KEPT_ROWS, few_kept_in))
    alarms = (alarm for least, rule in few if len(case.rows) < least and (alarm := rule(case.rows)))
    return next((Finding(alarm.name, alarm.text) for alarm in alarms), None)


def missing_rewards(case: Case) -> Finding | None:
    """Edits have no reward, or lack one that is mixed and not optional; by reason."""
    edits = groups_of(case.rows) * case.config["rollout"]["group_size"]
    lacking = {name: count for name, count in _missing(case).items() if count.total() >= max(1, FAILED * edits)}
    if not lacking:
        return None
    name, reasons = max(lacking.items(), key=lambda item: item[1].total())
    count, first = reasons.total(), reasons.most_common(1)[0][0]
    cure = next((cure for word, cure in CURES.items() if word in first), "mend it by what it says")
    words = "; ".join(f"{number} x {reason}" for reason, number in reasons.most_common(3))
    return Finding(
        "missing rewards",
        f"{count} of {edits} edits ({count / edits:.1%}) got no {name}: {words}. For the first, {cure}.",
    )


def tied(case: Case) -> Finding | None:
    """Many edits of a group get the same reward, though not all."""
    shares = values_of(case.rows[-WINDOW:], "ties")
    spread = values_of(case.rows[-WINDOW:], "reward_std_within")
    if not shares or not spread or (share := fmean(shares)) <= TIED or max(spread) < CONSTANT:
        return None
    judge = case.config["judge"]
    method = judge["method"] if judge else "rewards alone"
    return Finding(
        "judge ties",
        f"In {share:.0%} of the pairs of edits of one group that is trained on, both got the same reward ({method}), "
        "so they teach nothing. Read the judge's log-probabilities (judge.method=score_logit), let its scores be finer "
        "(judge.scale, judge.samples, judge.criteria), or mix in another reward.",
    )


def one_task(case: Case) -> Finding | None:
    """Hardly anything but one task is trained on, of several that are drawn."""
    rows = case.rows[-RECENT:]
    kept = sum((Counter(row.get("kept_by_task", {})) for row in rows), Counter[str]())
    tasks = {task for row in rows for task in row["reward_by_task"]}
    if len(tasks) < 2 or kept.total() < FEW_GROUPS or kept.most_common(1)[0][1] <= ONE_TASK * kept.total():
        return None
    task, count = kept.most_common(1)[0]
    return Finding(
        "one task dominates",
        f"{count} of the {kept.total()} groups that were trained on in the last {len(rows)} steps are of the task "
        f"{task!r}, of {len(tasks)} tasks. Take more items of the others into the data; if their groups are dropped, "
        "look at algorithm.filter.",
        wrong=False,
    )


def hacked_rewards(case: Case) -> Finding | None:
    """The reward has risen while something that is watched, or one of the rewards, has fallen."""
    gain, error = change_of(case.rows, "reward_mean")
    if gain <= GAIN * error:
        return None
    falls = {}
    for group, word in (("watched", "watched"), ("reward_parts", "reward")):
        rows = [row.get(group) or {} for row in case.rows]
        for name in dict.fromkeys(name for row in rows for name in row):
            fall, error = change_of(rows, name)
            if -fall > max(FALL, CERTAIN * error):
                falls[f"{word} {name}"] = fall
    if not falls:
        return None
    words = ", ".join(f"{name} {signed(fall)}" for name, fall in falls.items())
    return Finding(
        "reward hacking",
        f"The mean reward has risen ({signed(gain)}) and something else has fallen ({words}): the judge may be "
        "exploited. Look at the samples, raise algorithm.kl, give what fell more weight (rewards.NAME.weight), or take "
        "an earlier checkpoint.",
    )


def drifting_with_gain(case: Case) -> Finding | None:
    """The reward has risen while the edits have changed very much, which may be what was asked for."""
    gain, error = change_of(case.rows, "reward_mean")
    if gain <= GAIN * error:
        return None
    if not (words := drifted(case.rows[:WINDOW], case.rows[-WINDOW:], GROWN)):
        return None
    return Finding(
        "drift beside the gain",
        f"The mean reward has risen ({signed(gain)}) and the edits have changed much since the start ({words}). Look "
        "at the samples: if they are worse, the judge is exploited; raise algorithm.kl or lower optim.lr.",
        wrong=False,
    )


def lost_updates(case: Case) -> Finding | None:
    """An update is smaller than the rounding of the weights."""
    shares = [share for row in case.rows if (share := _relative_update(row)) is not None]
    full = case.config["adapter"]["mode"] == "full"
    dtype = case.config["editor"]["dtype"] if full else "float32"  # that of a LoRA
    if dtype not in SPACING or not shares or (share := median(shares)) >= SPACING[dtype] / 4:
        return None
    wider = " or set editor.dtype=float32" if dtype == "bfloat16" else ""
    return Finding(
        "updates lost in rounding",
        f"An update changes the weights by {share:.1e} of their norm (median), which rounding to {dtype} swallows "
        f"(relative spacing {SPACING[dtype]:.1e}). Raise optim.lr (now {case.config['optim']['lr']:g}){wider}.",
    )


def unseen_change(case: Case) -> Finding | None:
    """The velocity has not moved away from that of the untrained editor by more than rounding.

    It speaks where the part `kl` of the loss is the squared distance of the two, which an algorithm says of itself.
    """
    settings = case.config["algorithm"]
    kind = find_algorithms().get(settings.get("name"))
    updates = [row for row in case.rows if row.get("grad_norm")]
    distances = values_of(updates[-WINDOW:], "kl")
    if kind is None or not kind.model_construct(**settings).tells_distance:
        return None
    if len(updates) < UPDATES or not distances:
        return None
    if (distance := math.sqrt(max(fmean(distances), 0.0))) >= SEEN:
        return None
    weaker = ", or lower algorithm.kl" if settings["kl"] else ""
    return Finding(
        "change too small to see",
        f"After {len(updates)} updates the velocity differs from the untrained editor's by {distance:.1e} (root mean "
        f"square), which bfloat16 does not show beside numbers near 1 (spacing {SPACING['bfloat16']:.1e}). Raise "
        f"optim.lr (now {case.config['optim']['lr']:g}) or adapter.alpha{weaker}.",
    )


def silent_modules(case: Case) -> Finding | None:
    """Trained modules had no gradient in the first steps."""
    text = silence(case.self_check) if case.self_check else None
    return Finding("no gradient", text) if text else None


def flat_held_out(case: Case) -> Finding | None:
    """The held-out score has not surely risen; right after the start that is normal."""
    results: Mapping[str, Any] = case.results or {}
    measure = "oracle" if results.get("oracle") else "judge"
    score = results.get(measure)
    if not score or not score["ci95"] or score["ci95"][0] > 0 or results["items"] < FEW:
        return None
    low, high = map(signed, score["ci95"])
    words = (
        f"After {len(case.rows)} steps the held-out score of the {measure} changed by {signed(score['delta'])} "
        f"[{low}, {high}]"
    )
    if score["ci95"][1] < 0:
        return Finding("held-out items are worse", f"{words}. Raise algorithm.kl, or lower optim.lr.")
    cure = "Train longer (steps), raise optim.lr, or measure more (evaluation.items, evaluation.edits)."
    return Finding("held-out items are flat", f"{words}: no sure gain. {cure}", wrong=len(case.rows) >= UPDATES)


def hacked_held_out(case: Case) -> Finding | None:
    """On held-out items the judge's score rises and the oracle's falls."""
    results: Mapping[str, Any] = case.results or {}
    judge, oracle = ((results.get(name) or {}).get("ci95") for name in ("judge", "oracle"))
    if not judge or not oracle or judge[0] <= 0 or oracle[1] >= 0:
        return None
    return Finding(
        "reward hacking on held-out items",
        f"The judge's score rose ({signed(results['judge']['delta'])}) and the oracle's fell "
        f"({signed(results['oracle']['delta'])}): the judge is exploited. Raise algorithm.kl, or mix in "
        "another reward.",
    )


def past_the_best(case: Case) -> Finding | None:
    """The last step that was measured is not the best one."""
    if case.best is None or case.best.last.step == case.best.step:
        return None
    return Finding(
        "past the best checkpoint",
        f"The best checkpoint is {best_words(case.best)}. `--lora RUN{SUFFIX}` takes it. If it is surely better, train "
        "for fewer steps, lower optim.lr or raise algorithm.kl.",
        wrong=is_behind(case.best),
    )


def equal_policies(case: Case) -> Finding | None:
    """The sampling policy is still the trained one, which is normal at first."""
    settings = case.config["algorithm"]
    rate = settings.get("old_rate")
    kind = find_algorithms().get(settings.get("name"))
    if not case.rows or kind is None or (len(case.rows) > EARLY and rate):
        return None
    if "old" not in kind.model_construct(**settings).asks(EARLY):
        return None
    if not rate or not settings["old_cap"]:
        text = "In all steps the sampling policy is the trained one (v = v_old), as algorithm.old_rate or old_cap is 0."
    else:
        text = (
            "In steps 1 and 2 the sampling policy is the trained one (v = v_old), so the loss hardly moves: this is "
            f"normal. From step 3 on they part slowly (algorithm.old_rate={rate:g})."
        )
    return Finding("v = v_old", text, wrong=False)


def slow_judge(case: Case) -> Finding | None:
    """Waiting for the judge takes longer than making the edits."""
    rows = case.rows[-WINDOW:]
    count = max(len(rows), 1)
    judging, rolling = (sum(row["seconds"].get(part, 0.0) for row in rows) / count for part in ("judge", "rollout"))
    whole = sum(sum(row["seconds"].values()) for row in rows) / count
    if judging <= rolling or judging < SLOW * whole:
        return None
    judge = case.config["judge"]
    cure = (
        "Name more servers (judge.endpoints), raise judge.in_flight, let them cache what edits share "
        "(judge.order=prefix), or send smaller pictures (judge.jpeg_quality)."
        if judge and judge["endpoints"]
        else "Raise judge.batch_size, or put the judge on a server, which works beside the editor (judge.endpoints)."
    )
    return Finding(
        "judge slower than rollouts",
        f"A step waits {judging:.1f} s for the judge and makes its edits in {rolling:.1f} s, of "
        f"{whole:.1f} s in all. {cure}",
        wrong=False,
    )


DIAGNOSES: tuple[Callable[[Case], Finding | None], ...] = (
    early_alarms,
    missing_rewards,
    tied,
    hacked_rewards,
    drifting_with_gain,
    lost_updates,
    unseen_change,
    silent_modules,
    hacked_held_out,
    flat_held_out,
    past_the_best,
    one_task,
    equal_policies,
    slow_judge,
)


def _missing(case: Case) -> dict[str, Counter[str]]:
    """How many edits lack the reward, or one that is mixed, not optional and for them, by reason."""
    found: dict[str, Counter[str]] = {"reward": Counter()}
    for row in case.rows:
        found["reward"] += _counted(row["unscored"], row.get("reasons", []))
        for name, count in row.get("parts_unscored", {}).items():
            reasons = row.get("parts_reasons", {}).get(name, [])
            found[name] = found.get(name, Counter()) + lacking(_counted(count, reasons))
    return {name: count for name, count in found.items() if not case.config["rewards"].get(name, {}).get("optional")}


def _counted(whole: int, reasons: Sequence[str]) -> Counter[str]:
    """The counts of reasons, as a row tells the commonest ones, and of the others."""
    counts = Counter({match[2]: int(match[1]) for reason in reasons if (match := COUNTED.fullmatch(reason))})
    return counts + Counter({"other reasons": whole - counts.total()})


def _relative_update(row: Mapping[str, Any]) -> float | None:
    """The norm of an update as a share of the weights'; None if there was no gradient."""
    weights = row.get("lora_norm") or row.get("weight_norm")
    if not row.get("grad_norm") or row.get("update_norm") is None or not weights:
        return None
    return float(row["update_norm"]) / float(weights)
