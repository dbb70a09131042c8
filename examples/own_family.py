"""A family of your own: how a diffusers pipeline is called. `python examples/own_family.py` shows it on the toy editor.

A pipeline without a record gets one by a few calls; `editr1 editor probe PATH` prints it, to be changed like this.
"""

from editr1 import FAMILIES, Family, load_config, open_editor, open_trainer, rollout

MINE = Family(
    name="my-qwen-edit",
    pipeline="QwenImageEditPlusPipeline",  # the class of diffusers; the record replaces that of editr1
    sources=None,  # any number of source images
    negative=" ",
    guidance_arg="true_cfg_scale",
    guidance=1.0,
    multiple=32,  # sides of an edit
    source_areas=("VAE_IMAGE_SIZE",),
    preview_areas=("CONDITION_IMAGE_SIZE",),
    batch_args=("encoder_hidden_states", "encoder_hidden_states_mask", "guidance"),
    lora_targets=("to_q", "to_k"),  # editr1's own trains more
)
FAMILIES[MINE.pipeline] = MINE

if __name__ == "__main__":
    small = ["rollout.groups_per_step=2", "rollout.group_size=4", "steps=2", "out=runs/own_family"]
    trainer = open_trainer(load_config("toy", [*small, "adapter={rank: 8, alpha: 16}"]))
    trainer.train()  # replays the first denoiser calls: a record that is wrong is told
    editor = open_editor("toy", lora=trainer.out)
    rollout(editor, trainer.dataset[0], steps=6)[0].save(trainer.out / "edit.png")
    print(editor.family.name, "trains", ", ".join(editor.family.lora_targets))
