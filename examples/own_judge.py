"""A judge of your own: it sees a whole group at once. `python examples/own_judge.py` trains the toy editor by it.

In a config: `rewards: {own: {kind: function, path: "own_judge:Brightest"}}`, here with no other judge.
"""

from collections.abc import Sequence

from PIL import ImageStat

from editr1 import JudgeRequest, Score, load_config, open_trainer


class Brightest:
    """Ranks the edits of a group by their brightness; the darkest has 0, the brightest 1."""

    remote = False  # true if `score` waits for another machine: it is then called from several threads
    compares = True  # a score depends on the other edits of its group; leave it out if it does not

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        """One score per request, in their order; `Score(None, reason)` for an edit without a score."""
        light = [ImageStat.Stat(request.edit.convert("L")).mean[0] for request in requests]
        order = sorted(light)
        return [Score(order.index(each) / max(len(order) - 1, 1)) for each in light]


if __name__ == "__main__":
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "steps=2", "out=runs/own_judge"]
    own = "rewards={own: {kind: function, path: 'own_judge:Brightest'}}"
    trainer = open_trainer(load_config("toy", [*small, "judge=null", own]))
    trainer.train(on_step=lambda row: print(row["step"], row["reward_mean"], row["edits"]["brightness"]))
