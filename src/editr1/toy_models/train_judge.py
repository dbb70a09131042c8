"""The toy judge: a small Qwen2.5-VL that answers one digit to the scoring prompt.

It learns from edits of every quality (`corrupt.candidate`, and samples of toy editors), labelled by the oracle. A digit
alone teaches slowly, so it first learns to describe single pictures, and is then helped by `hints` at the question's
tokens and by `patches` at the edit's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLProcessor

from editr1.config.data import Level
from editr1.data.samples import EditSample
from editr1.judges.base import Ask, JudgeRequest
from editr1.judges.models.local import chat
from editr1.judges.prompts import Question, load_prompt
from editr1.toy import oracle
from editr1.toy.corrupt import candidate
from editr1.toy.scene import Scene, draw, to_array, to_image
from editr1.toy.world import ToyItem, item_from_key, make_item
from editr1.toy_models.fit import Fit
from editr1.toy_models.hints import COUNT, LAYERS, SEEN_HINTS, Hint, hints
from editr1.toy_models.language import PICTURE, VLSize, init_qwen_vl, load_tokenizer, make_processor, use_equal_pictures
from editr1.toy_models.patches import PatchHeads, patch_labels
from editr1.toy_models.samples import weighted_index

PATCH = 8  # a 64x64 picture becomes 4x4 tokens
JUDGE = VLSize(layers=7, patch=PATCH, vision_layers=2, theta=30.0, sections=(2, 7, 7))
DIGITS = "012345"
METHODS: tuple[Question, ...] = ("score", "yes_no", "think")
SHARES = (0.6, 0.2, 0.2)
DESCRIBED = 0.08  # share of the batches in which the judge also describes both pictures; these take half as long again
SAMPLED = 0.6  # share of a batch from toy editors
EACH = 6  # edits of one item in a batch
WEIGHTS = {"adjust": 5.0, "action": 3.0, "style": 1.5, "compose": 1.5}  # tasks that are hard to judge, more often
TAIL = 5  # tokens between the question and the answer
IGNORE = -100
BLANK = Image.new("RGB", (64, 64))


@dataclass(frozen=True)
class Example:
    """One labelled edit: prompt text, both pictures, the oracle's score, a description (or ""), hints."""

    prompt: str
    method: Question
    source: Image.Image
    edit: Image.Image
    label: float
    description: str
    hints: list[Hint]
    patches: np.ndarray  # [16, 52]


def describe(source: Scene, edit: Scene) -> str:
    """What both pictures show, cell by cell."""
    return f"Source: {_words(source)} Edit: {_words(edit)}"


def _words(scene: Scene) -> str:
    cells = []
    for cell in range(4):
        thing = scene.at(cell)
        if thing is None:
            cells.append("empty")
            continue
        size = "" if thing.size == "normal" else thing.size
        pose = ("flipped" if thing.flipped else "") + (" turned" if thing.turned else "")
        cells.append(" ".join(f"{size} {thing.colour or ''} {thing.name} {pose}".split()))
    ground = scene.background if scene.pattern == "plain" else f"{scene.background} {scene.pattern}"
    return f"{scene.style or 'plain'} {ground}; {', '.join(cells)}."


def synthetic(
    rng: np.random.Generator, level: Level, seed: int, per_item: int, chat: Chat, described: bool
) -> list[Example]:
    """`per_item` candidates of one random sft item, with their descriptions if `described`."""
    item = make_item(level, "sft", seed, weighted_index(rng, WEIGHTS))
    source = to_image(draw(item.scene))
    examples = []
    for _ in range(per_item):
        trial = candidate(rng, item, level)
        picture = to_image(trial.picture)
        score = oracle.score(item, picture)
        method: Question = METHODS[int(rng.choice(len(METHODS), p=SHARES))] if described else "score"
        description = describe(item.scene, trial.scene) if described else ""
        notes = hints(item, trial.picture, trial.scene)
        near = patch_labels(item, trial.picture, score)
        examples.append(Example(chat(item, method), method, source, picture, score.score, description, notes, near))
    return examples


def looks(rng: np.random.Generator, level: Level, seed: int, count: int) -> list[tuple[Image.Image, str]]:
    """Single pictures and what they show: the first lesson, a third as long as judging."""
    pairs = []
    for _ in range(count):
        item = make_item(level, "sft", seed, int(rng.integers(1 << 30)))
        if rng.random() < 0.5:
            pairs.append((to_image(draw(item.scene)), _words(item.scene)))
        else:
            trial = candidate(rng, item, level)
            pairs.append((to_image(trial.picture), _words(trial.scene)))
    return pairs


class EditBank:
    """Edits that toy editors made: files of {"images": uint8 [n, G, 64, 64, 3]} beside lists of item keys."""

    def __init__(self, folder: Path) -> None:
        self.keys: list[str] = []
        images = []
        for path in sorted(folder.glob("*.safetensors")):
            images.append(load_file(path)["images"].numpy())
            self.keys += json.loads(path.with_suffix(".json").read_text())
        self.images = np.concatenate(images) if images else np.zeros((0, 1, 64, 64, 3), np.uint8)
        shares = np.array([WEIGHTS.get(item_from_key(key).edit.task, 1.0) for key in self.keys])
        self.shares = shares / shares.sum()

    def draw(self, rng: np.random.Generator, per_item: int, chat: Chat) -> list[Example]:
        """`per_item` different samples of one item."""
        row = int(rng.choice(len(self.keys), p=self.shares))
        item = item_from_key(self.keys[row])
        source = to_image(draw(item.scene))
        examples = []
        for column in rng.permutation(self.images.shape[1])[:per_item]:
            edit = Image.fromarray(self.images[row, column])
            method: Question = METHODS[int(rng.choice(2, p=[0.88, 0.12]))]
            score, notes = oracle.score(item, edit), hints(item, to_array(edit), None)
            near = patch_labels(item, to_array(edit), score)
            examples.append(Example(chat(item, method), method, source, edit, score.score, "", notes, near))
        return examples


class Chat:
    """The judge's prompt as text, as the processor's chat template makes it."""

    def __init__(self, processor: Qwen2VLProcessor) -> None:
        self.processor, self.prompt = processor, load_prompt("brief", "prefix")

    def __call__(self, item: ToyItem, method: Question) -> str:
        edit = item.edit
        request = JudgeRequest(EditSample(item.key, BLANK, edit.instruction, edit.requirement, edit.task), BLANK)
        messages = chat(Ask(self.prompt.parts(request, method)))
        return str(self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def answer(example: Example) -> str:
    """What the judge should say; its score token (digit, or yes/no) is replaced by a soft label in the loss."""
    digit = str(round(example.label * 5))
    if example.method == "yes_no":
        return "yes" if example.label >= 0.5 else "no"
    if example.method == "think":
        return f"{example.description} Score: {digit}"
    return f"{digit} {example.description}" if example.description else digit


@dataclass(frozen=True)
class Batch:
    """Model inputs, language-model labels [B, L], and soft labels at the score tokens."""

    inputs: dict[str, Tensor]
    labels: Tensor
    rows: Tensor  # [S] row of each score token
    places: Tensor  # [S] position whose logits predict it
    soft: Tensor  # [S, V'] over digits then no, yes
    seen: Tensor  # [H, 3] row, position, token of each hint of what is seen
    wanted: Tensor  # [H', 3] the same of what is wanted
    bits: Tensor  # [H'', 3] row, position, probability of "yes" of each other hint
    where: Tensor  # [B, 16] positions of the edits' tokens
    patches: Tensor  # [B, 16, 52] their labels
    group: Tensor  # [B] which examples are edits of one item


def collate(examples: list[Example], processor: Qwen2VLProcessor) -> Batch:
    """Tokenise prompt + answer; the score token's own label is ignored in favour of the soft one."""
    tokenizer = processor.tokenizer
    texts = [e.prompt + answer(e) + "<|im_end|>" for e in examples]
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for e in examples for image in (e.source, e.edit)]
    inputs = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    ids = inputs["input_ids"]
    labels = torch.full_like(ids, IGNORE)
    soft = torch.zeros(len(examples), len(DIGITS) + 2)
    places = torch.zeros(len(examples), dtype=torch.long)
    lengths = inputs["attention_mask"].sum(1)
    hint_rows: list[tuple[int, int, int, Hint]] = []
    for row, e in enumerate(examples):
        tail = len(tokenizer(answer(e) + "<|im_end|>")["input_ids"])
        start, end = int(lengths[row]) - tail, int(lengths[row])
        labels[row, start:end] = ids[row, start:end]
        place = end - 2 if e.method == "think" else start
        labels[row, place] = IGNORE
        places[row] = place - 1
        if e.method == "score":
            hint_rows += [(i, row, start - TAIL - COUNT + i, hint) for i, hint in enumerate(e.hints)]
        if e.method == "yes_no":
            soft[row, 6], soft[row, 7] = 1 - e.label, e.label
        else:
            low = min(int(e.label * 5), 4)
            soft[row, low], soft[row, low + 1] = low + 1 - e.label * 5, e.label * 5 - low
    words = [(i, row, at, tokenizer(f" {h}")["input_ids"][0]) for i, row, at, h in hint_rows if isinstance(h, str)]
    seen = torch.tensor([rest for i, *rest in words if i < SEEN_HINTS])
    wanted = torch.tensor([rest for i, *rest in words if i >= SEEN_HINTS])
    bits = torch.tensor([(row, at, hint) for _, row, at, hint in hint_rows if isinstance(hint, float)])
    pad = ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    where = pad.nonzero()[:, 1].view(len(examples), 32)[:, 16:]
    near = torch.from_numpy(np.stack([e.patches for e in examples]))
    questions = [(e.prompt, e.source.tobytes()) for e in examples]
    group = torch.tensor([questions.index(question) for question in questions])
    rows = torch.arange(len(examples))
    return Batch(dict(inputs), labels, rows, places, soft, seen, wanted, bits, where, near, group)


def judge_loss(
    model: Qwen2_5_VLForConditionalGeneration, heads: PatchHeads, batch: Batch, tokens: Tensor
) -> dict[str, Tensor]:
    """Losses of the score token, of the order among one item's edits, and of hints, patches and description."""
    states = model.model(**batch.inputs, output_hidden_states=True).hidden_states
    hidden = states[-1]
    logits = model.lm_head(hidden[batch.rows, batch.places]).float()
    score = -(batch.soft * F.log_softmax(logits, -1)[:, tokens]).sum(-1).mean()
    value, order = score_errors(logits[:, tokens[:6]], batch)
    where = batch.labels[:, 1:] != IGNORE  # at least the end of each answer
    text_logits = model.lm_head(hidden[:, :-1][where]).float()
    words = F.cross_entropy(text_logits, batch.labels[:, 1:][where])

    def read(kind: str, at: Tensor) -> Tensor:
        middle = model.model.language_model.norm(states[LAYERS[kind]][at[:, 0].long(), at[:, 1].long()])
        return F.log_softmax(model.lm_head(middle).float(), -1)

    seen = F.nll_loss(read("seen", batch.seen), batch.seen[:, 2])
    wanted = F.nll_loss(read("wanted", batch.wanted), batch.wanted[:, 2])
    no, yes = read("right", batch.bits)[:, tokens[6:]].unbind(1)
    bits = -(batch.bits[:, 2] * yes + (1 - batch.bits[:, 2]) * no).mean()
    near = heads(states, batch.where, batch.patches)
    loss = score + 8 * (value + order) + 0.3 * words + 0.5 * (seen + wanted) + bits
    loss = loss + 8 * near["target"] + 4 * near["near"] + near["parts"]
    parts = {"score": score, "value": value, "order": order, "words": words, "seen": seen, "wanted": wanted}
    return {"loss": loss, **parts, "bits": bits, **near}


def score_errors(logits: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean squared errors of the expected score in [0, 1], and of its differences from its item's mean.

    The first is lowered by telling easy items from hard ones; the second, which training by groups hangs on, is not.
    """
    label = batch.soft[:, :6] @ torch.arange(6.0) / 5
    scored = (batch.soft[:, :6].sum(-1) > 0.5).float()  # [B] 0 for yes/no answers
    error = (F.softmax(logits, -1) @ torch.arange(6.0) / 5 - label) * scored
    count = torch.zeros(len(error)).index_add(0, batch.group, scored)
    mean = torch.zeros(len(error)).index_add(0, batch.group, error) / count.clamp(min=1)
    apart = (error - mean[batch.group]) * scored
    total = scored.sum().clamp(min=1)
    return error.square().sum() / total, apart.square().sum() / total


def looking_loss(
    model: Qwen2_5_VLForConditionalGeneration, pairs: list[tuple[Image.Image, str]], processor: Qwen2VLProcessor
) -> dict[str, Tensor]:
    """Language-model loss of describing one picture."""
    texts = [f"{PICTURE}{words}<|im_end|>" for _, words in pairs]
    images = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in pairs]
    inputs = processor(text=texts, images=images, padding=True, padding_side="right", return_tensors="pt")
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, IGNORE)
    labels[:, : 2 + (64 // PATCH // 2) ** 2] = IGNORE
    hidden = model.model(**inputs).last_hidden_state[:, :-1]
    where = labels[:, 1:] != IGNORE
    words = F.cross_entropy(model.lm_head(hidden[where]).float(), labels[:, 1:][where])
    return {"loss": words, "look": words}


def init_judge(size: VLSize = JUDGE) -> tuple[Qwen2_5_VLForConditionalGeneration, Qwen2VLProcessor]:
    """The untrained judge and its processor."""
    tokenizer = load_tokenizer()
    return init_qwen_vl(tokenizer, size), make_processor(tokenizer, size.patch)


def train_judge(
    out: Path,
    *,
    level: Level,
    seed: int,
    steps: int,
    look: int,
    alone: int,
    samples: Path,
    batch: int,
    size: VLSize = JUDGE,
    stop: int | None = None,
) -> Qwen2_5_VLForConditionalGeneration:
    """Train (or go on training) the judge and save it at `out`/judge.

    The first `look` steps describe single pictures; up to step `alone` all edits are synthetic; after that the
    share `SAMPLED` of each batch comes from `samples`. Another `size` has the layers and the patch of `JUDGE` too,
    since its middle layers are what is taught; it may be narrower. A `stop` ends training before the last of `steps`.
    """
    torch.manual_seed(seed)
    model, processor = init_judge(size)
    use_equal_pictures(model)
    chat, heads = Chat(processor), PatchHeads(model.config.text_config.hidden_size)
    tokens = torch.tensor(processor.tokenizer.convert_tokens_to_ids([*DIGITS, "no", "yes"]))
    modules = {"judge": model, "heads": heads}
    fit = Fit(modules, out / "fit", steps=steps, hidden=lambda name, _: "layers" in name or "blocks" in name)
    bank = EditBank(samples)

    def loss(step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([seed, step])
        if step < look:
            with torch.autocast("cpu", torch.bfloat16):
                return looking_loss(model, looks(rng, level, seed, batch + batch // 2), processor)
        examples: list[Example] = []
        described = rng.random() < DESCRIBED
        while len(examples) < batch:
            sampled = step >= alone and rng.random() < SAMPLED
            examples += bank.draw(rng, EACH, chat) if sampled else synthetic(rng, level, seed, EACH, chat, described)
        with torch.autocast("cpu", torch.bfloat16):
            return judge_loss(model, heads, collate(examples, processor), tokens)

    fit.run(loss, stop)
    model.to(torch.bfloat16).save_pretrained(out / "judge")
    processor.save_pretrained(out / "judge")
    return model
