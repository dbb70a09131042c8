"""All of `editr1 plan`: the plan, the changes that make it fit, the judge, other numbers of nodes."""

from __future__ import annotations

from typing import Any

from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.planning.forecast import Place, forecast, scaling
from editr1.planning.gpus import Gpus
from editr1.planning.judging import judge_cost
from editr1.planning.plan import EFFICIENCY, Planner, Settings
from editr1.planning.uncounted import uncounted
from editr1.planning.words import as_json, as_text


def place_of(config: Config, place: Place | None) -> Place:
    """Where the judge of a run computes: at `place`, by default where its settings say; nowhere without a judge."""
    if config.judge is None:
        return "none"
    return place or ("elsewhere" if config.judge.endpoints else "beside")


def plan_run(
    settings: Settings,
    gpus: Gpus,
    place: Place | None = None,
    *,
    replicas: int | None = None,
    price: float | None = None,
    efficiency: float = EFFICIENCY,
) -> tuple[dict[str, Any], list[str]]:
    """A plan as JSON, and as lines.

    Args:
        settings: The run's settings with some overrides more.
        gpus: The trainers' GPUs.
        place: Where the judge computes; None for elsewhere if it has endpoints, else beside the trainers.
        replicas: Judges elsewhere; None for as many as are needed.
        price: Of a GPU for an hour.
        efficiency: Share of a GPU's speed that is reached.

    Raises:
        UserError: The planner does not know the editor, a setting or the judge.
    """
    config = settings(())
    if config.data.is_stored:
        raise UserError(f'data.kind "{config.data.kind}": a plan is for runs that make and judge their edits')
    place = place_of(config, place)
    judge = None if place == "none" else judge_cost(config)
    extra = judge.bytes if judge and place == "beside" else 0.0
    planner = Planner(settings, gpus, extra, efficiency, remote=place != "beside")
    plan = planner.plan()
    ahead = forecast(plan, judge, place, gpus, replicas)
    better = None
    if not plan.fits:
        changes, changed = planner.fit(plan)
        better = changes, changed, forecast(changed, judge, place, gpus, replicas)
    usable = plan if better is None else better[1]
    facts = as_json(plan, ahead, better, judge, scaling(usable, judge, place), price)
    facts["judge"]["place"], facts["not_counted"] = place, uncounted(config, place, gpus.total)
    return facts, list(as_text(facts, config.steps, gpus.kind.memory))
