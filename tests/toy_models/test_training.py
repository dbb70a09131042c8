"""What the toy's training relies on: its shortcuts give what the stock models give, and it resumes bit for bit."""

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from editr1.data.samples import EditSample
from editr1.editors.editor import Editor, temporarily
from editr1.editors.families import FAMILIES
from editr1.judges.models.tokens import score_token_ids
from editr1.judges.scoring import digits as score_digits
from editr1.toy import oracle
from editr1.toy.scene import Scene, Thing, draw, to_image
from editr1.toy.world import make_item
from editr1.toy_models import flux_layout, qwen_layout
from editr1.toy_models import train_vae as toy_vae
from editr1.toy_models.fit import Fit
from editr1.toy_models.flux_text import make_clip_tokenizer, make_t5_tokenizer
from editr1.toy_models.language import editor_template, use_equal_pictures
from editr1.toy_models.patches import patch_labels, patches
from editr1.toy_models.qwen_layout import encode_words
from editr1.toy_models.train_editor import Encoder, pack
from editr1.toy_models.train_judge import IGNORE, Chat, collate, describe, init_judge, score_errors, synthetic


@pytest.fixture(scope="module")
def editor():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return qwen_layout.init_pipeline(toy_vae.init_qwen_vae())


@pytest.fixture(scope="module")
def judge():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return init_judge()


def test_the_template_prefix_is_the_64_tokens_that_the_pipeline_drops(editor) -> None:  # type: ignore[no-untyped-def]
    prefix = editor_template().split("{}")[0]
    assert len(editor.tokenizer(prefix)["input_ids"]) == editor.prompt_template_encode_start_idx == 64


def test_every_word_of_an_instruction_is_one_token(editor) -> None:  # type: ignore[no-untyped-def]
    words = "Replace the guitar with a mushroom and then paint the background purple."
    assert len(editor.tokenizer(words)["input_ids"]) == len(words.split()) + 1


def test_training_encodes_prompts_as_the_pipeline_does(editor) -> None:  # type: ignore[no-untyped-def]
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    items = [make_item("small", "sft", 0, index) for index in (0, 8)]
    pictures = [to_image(draw(item.scene)) for item in items]
    pixels = [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    with torch.no_grad(), temporarily(module, CONDITION_IMAGE_SIZE=64 * 64):
        rows, mask = encode_words(editor, [item.edit.instruction for item in items], pixels)
        for row, keep, item, picture in zip(rows, mask, items, pictures, strict=True):
            own, _ = editor.encode_prompt(prompt=item.edit.instruction, image=[picture], device="cpu")
            assert torch.allclose(row[keep.bool()], own[0], atol=1e-5)


def test_the_flux_layout_trains_on_what_its_pipeline_computes() -> None:
    """Text states, places of the tokens and time: the velocity in training is the one of the tapped pipeline."""
    torch.manual_seed(0)
    vae = toy_vae.init_flux_vae()
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.9)
    pipe = flux_layout.init_pipeline(vae.eval())
    nn.init.normal_(pipe.transformer.proj_out.weight, std=0.1)
    item = make_item("small", "sft", 0, 8)
    sample = EditSample("flux", to_image(draw(item.scene)), item.edit.instruction)
    editor = Editor(pipe, FAMILIES["FluxKontextPipeline"], pixels=64 * 64)
    rollout = editor.rollout(sample, 2, steps=2, seed=0, scheduler="euler")
    source = Encoder(vae)(draw(item.scene)[None])
    torch.testing.assert_close(rollout.conditioning.source, source, rtol=0, atol=0.02)  # 8 bits a colour
    source = rollout.conditioning.source
    t = torch.tensor([0.3, 0.8])
    with torch.no_grad(), temporarily(flux_layout, GUIDANCE=(2.5, 2.5)):
        trained = flux_layout.velocity(
            pipe, rollout.latents, t, source.expand(2, -1, -1), [item.edit.instruction] * 2, []
        )
        sampled = editor.velocity(rollout.conditioning, rollout.latents, t)
    torch.testing.assert_close(trained, sampled, rtol=1e-5, atol=1e-5)


def test_clip_and_t5_know_every_word_as_one_token() -> None:
    words = "Replace the guitar with a mushroom and then paint the background purple."
    count = len(words.split()) + 1
    assert len(make_clip_tokenizer().tokenize(words)) == len(make_t5_tokenizer().tokenize(words)) == count
    assert make_clip_tokenizer().get_vocab() == make_clip_tokenizer().get_vocab()


def test_one_frame_convolutions_give_what_the_causal_ones_give() -> None:
    torch.manual_seed(0)
    vae, x = toy_vae.init_qwen_vae(), torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        slow = vae.encoder(x), vae.decode(torch.ones(2, 16, 1, 8, 8)).sample
        toy_vae.use_one_frame_convolutions(vae)
        quick = vae.encoder(x), vae.decoder(vae.post_quant_conv(torch.ones(2, 16, 1, 8, 8))).clamp(-1, 1)
    for one, other in zip(slow, quick, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_packing_keeps_each_2x2_block_in_one_token() -> None:
    latents = torch.arange(64.0).view(1, 1, 8, 8).expand(1, 16, 8, 8)
    assert pack(latents)[0, 5, :4].tolist() == [18, 19, 26, 27]


def test_equal_pictures_give_what_the_stock_attention_gives(judge) -> None:  # type: ignore[no-untyped-def]
    model, processor = judge
    chat, rng = Chat(processor), np.random.default_rng(0)
    batch = collate(synthetic(rng, "small", 0, 3, chat, described=True), processor)
    with torch.no_grad():
        stock = model.model(**batch.inputs).last_hidden_state
        use_equal_pictures(model)
        quick = model.model(**batch.inputs).last_hidden_state
    keep = batch.inputs["attention_mask"].bool()
    assert torch.allclose(stock[keep], quick[keep], atol=1e-4)


def test_the_soft_label_sits_at_the_position_that_predicts_the_digit(judge) -> None:  # type: ignore[no-untyped-def]
    _, processor = judge
    examples = synthetic(np.random.default_rng(3), "small", 0, 24, Chat(processor), described=True)
    batch = collate(examples, processor)
    digits = set(score_token_ids(processor.tokenizer, score_digits((0, 5))))
    assert {example.method for example in examples} == {"score", "yes_no", "think"}
    for row, example in enumerate(examples):
        place = int(batch.places[row])
        said = int(batch.inputs["input_ids"][row, place + 1])
        assert batch.labels[row, place + 1] == IGNORE
        if example.method == "yes_no":
            assert processor.tokenizer.decode([said]) in ("yes", "no")
            assert batch.soft[row, 7] == pytest.approx(example.label)
        else:
            assert said in digits
            assert batch.soft[row, :6] @ torch.arange(6.0) / 5 == pytest.approx(example.label, abs=1e-6)


def test_a_patch_is_what_the_judges_token_of_that_place_sees(judge) -> None:  # type: ignore[no-untyped-def]
    picture = np.zeros((64, 64), np.float32)
    picture[16:32, 48:] = 1  # second row, fourth column
    assert patches(picture).mean(1).tolist() == [float(place == 7) for place in range(16)]
    processor = judge[1].image_processor
    black, white = Image.new("RGB", (64, 64)), Image.fromarray((picture * 255).astype("uint8")).convert("RGB")
    seen = [processor(images=[shown], return_tensors="pt")["pixel_values"] for shown in (black, white)]
    differs = (seen[0] != seen[1]).any(1).view(16, 4)  # four patches merge into one token
    assert differs.all(1).nonzero().flatten().tolist() == [7]


def test_patch_labels_are_one_where_the_edit_is_the_target_and_tell_where_it_is_not() -> None:
    item = make_item("small", "sft", 0, 0)
    source, target = draw(item.scene), draw(item.edit.target)
    right, undone = (patch_labels(item, shown, oracle.score(item, to_image(shown))) for shown in (target, source))
    assert np.all(right[:, 48] == 1)
    assert np.all(right[:, 50:] > 0.99)
    assert np.array_equal(undone[:, 48], undone[:, 49])
    assert undone[:, 48].min() < 1
    thumbnail = to_image(target).resize((16, 16), Image.Resampling.BOX)
    assert np.allclose(right[5, :48].reshape(4, 4, 3), np.asarray(thumbnail)[4:8, 4:8] / 255, atol=0.01)


def test_the_order_error_is_the_mean_square_within_items_by_hand(judge) -> None:  # type: ignore[no-untyped-def]
    examples = synthetic(np.random.default_rng(1), "small", 0, 3, Chat(judge[1]), described=False)
    examples += synthetic(np.random.default_rng(2), "small", 0, 3, Chat(judge[1]), described=False)
    batch = collate(examples, judge[1])
    logits = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))
    value, order = score_errors(logits, batch)
    said = logits.double().softmax(-1).numpy() @ np.arange(6) / 5
    error = (said - [example.label for example in examples]).reshape(2, 3)
    assert float(value) == pytest.approx(np.mean(error**2), rel=1e-4)
    assert float(order) == pytest.approx(np.mean((error - error.mean(1, keepdims=True)) ** 2), rel=1e-4)


def test_a_description_names_what_is_seen_by_place() -> None:
    scene = Scene((Thing("cat", 0), Thing("star", 3, "blue", "large", turned=True)), "pink")
    said = describe(scene, scene.without(0))
    assert said.endswith("Edit: plain pink; empty, empty, empty, large blue star turned.")
    assert said.startswith("Source: plain pink; cat, empty, empty,")


def test_psnr_of_a_vae_that_loses_nothing_is_as_high_as_the_error_is_small() -> None:
    class Off(nn.Module):
        dtype = torch.float32

        def encode(self, x: Tensor):  # type: ignore[no-untyped-def]
            self.x = x
            return self

        latent_dist = property(lambda self: self)
        mode = lambda self: self.x  # noqa: E731

        def decode(self, x: Tensor) -> Any:
            self.sample = x * 0.98
            return self

    # Pictures are mostly bright: an error of 2% of values in [-1, 1] is under 0.01 in [0, 1], so over 40 dB.
    assert 40 < toy_vae.psnr(Off(), "small", 0, 4) < 60


def train(out: Path, stops: list[int]) -> dict[str, Tensor]:
    """Train a small net to 6 steps, stopping and starting anew at `stops`."""
    for steps in [*stops, 6]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 2))
        fit = Fit({"net": net}, out, steps=6, hidden=lambda name, value: name.startswith("0"))
        fit.steps = 6

        def loss(step: int, net: nn.Module = net, fit: Fit = fit, until: int = steps) -> dict[str, Tensor]:
            if step == until:
                raise KeyboardInterrupt
            x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
            return {"loss": (net(x) - x[:, :2]).pow(2).mean()}

        fit.save_every = 1
        with contextlib.suppress(KeyboardInterrupt):
            fit.run(loss)
    return fit.average


def test_a_stopped_fit_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    straight, stopped = train(tmp_path / "a", []), train(tmp_path / "b", [2, 4])
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)


def test_pictures_keep_their_size_in_tokens(judge) -> None:  # type: ignore[no-untyped-def]
    processor = judge[1]
    inputs = processor(text=["<|vision_start|><|image_pad|><|vision_end|>"], images=[Image.new("RGB", (64, 64))])
    assert len(inputs["input_ids"][0]) == 2 + 16


def test_the_vocabulary_is_the_one_that_the_weights_were_trained_with(editor) -> None:  # type: ignore[no-untyped-def]
    vocabulary = json.dumps(sorted(editor.tokenizer.get_vocab().items())).encode()
    assert hashlib.md5(vocabulary).hexdigest() == "9fa741bfdedb5a4a7a1eadcd1bc20b51"
