"""A dataset of your own: anything with a length and an `EditSample` per index. `python examples/own_dataset.py`.

In a config: `data: {kind: function, path: "own_dataset:Squares"}`, the name of a class, of a function or of a list.
"""

from PIL import Image, ImageDraw

from editr1 import EditSample, load_config, open_trainer

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")


class Squares:
    """A coloured square on grey, which is to have the next colour; each picture is drawn when it is asked for."""

    def __len__(self) -> int:
        return len(COLOURS)

    def __getitem__(self, index: int) -> EditSample:
        before, after = COLOURS[index], COLOURS[(index + 1) % len(COLOURS)]
        source = Image.new("RGB", (64, 64), "grey")
        ImageDraw.Draw(source).rectangle((20, 20, 44, 44), fill=before)
        instruction, requirement = f"make the {before} square {after}", f"The square is {after}."
        return EditSample(f"square-{before}", source, instruction, requirement, task="adjust")


if __name__ == "__main__":
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "steps=2", "out=runs/own_dataset"]
    own = "data={kind: function, path: 'own_dataset:Squares'}"
    trainer = open_trainer(load_config("toy", [*small, own]))
    trainer.train(on_step=lambda row: print(row["step"], row["reward_by_task"]))
