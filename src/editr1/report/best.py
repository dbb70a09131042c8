"""The best checkpoint in words, for the log, the report, `watch` and `doctor`."""

from __future__ import annotations

from editr1.evaluation.paired import FEW
from editr1.report.text import number, signed
from editr1.training.best import Best


def best_words(best: Best) -> str:
    """The best step with its reward, and by how much the last one is behind it."""
    words = f"step {best.step}, held-out reward {number(best.reward, 3)} ({signed(best.gain)} since the start)"
    if best.last.step == best.step:
        return f"{words}, is the last one that was measured"
    if best.last.behind is None or best.last.ci95 is None:
        return f"{words}; the last one, step {best.last.step}, has no rewards of the same items"
    interval = ", ".join(map(signed, best.last.ci95))
    return f"{words}; the last one, step {best.last.step}, is {_behind(best.last.behind)} [{interval}], {_judged(best)}"


def is_behind(best: Best) -> bool:
    """Whether the last step is surely worse than the best one."""
    return best.items >= FEW and best.last.ci95 is not None and best.last.ci95[0] > 0


def _behind(change: float) -> str:
    return f"{number(change, 3)} behind" if change > 0 else "as good"


def _judged(best: Best) -> str:
    if best.items < FEW:
        return "on too few items to tell"
    return "surely worse" if is_behind(best) else "within noise"
