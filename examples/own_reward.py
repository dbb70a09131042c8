"""A reward of your own: a function of one edit. `python examples/own_reward.py` trains the toy editor by it.

In a config: `rewards: {calm: {kind: function, path: "own_reward:calm"}}`, here beside the toy judge.
"""

from PIL import Image, ImageChops, ImageStat

from editr1 import load_config, open_trainer


def calm(source: Image.Image, edit: Image.Image, instruction: str, requirement: str, task: str) -> float | None:
    """How little of the picture changes, in [0, 1]; None for an item that it does not apply to."""
    if task == "background":
        return None
    difference = ImageChops.difference(source.resize(edit.size), edit)
    return 1 - sum(ImageStat.Stat(difference).mean) / 3 / 255


if __name__ == "__main__":
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "steps=2", "out=runs/own_reward"]
    own = "rewards={calm: {kind: function, path: 'own_reward:calm', weight: 0.5}}"
    trainer = open_trainer(load_config("toy", [*small, own]))
    trainer.train(on_step=lambda row: print(row["step"], row["reward_parts"]))
