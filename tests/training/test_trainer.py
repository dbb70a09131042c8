import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from editr1.algorithms.base import Edits, Rows, find_algorithms
from editr1.algorithms.mixing import mix
from editr1.data.samples import EditSample
from editr1.editors.editor import Editor
from editr1.editors.open import open_editor
from editr1.errors import UserError
from editr1.files import read_lines
from editr1.judges.base import JudgeRequest, Score
from editr1.judges.rewards.mixed import MixedJudge
from editr1.training import checkpoint
from editr1.training.exchange import Judged
from editr1.training.group import Group
from editr1.training.log import RunLog
from editr1.training.rewarding import assign_advantages, assign_rewards, requests_of
from editr1.training.step_row import StepRow
from editr1.training.trainer import Trainer
from tests.training.runs import (
    ONLINE,
    STEPS,
    Colours,
    G,
    Make,
    RedJudge,
    T,
    assert_same_run,
    at_call,
    settings,
    tensors_of,
)


@pytest.fixture(scope="module")
def straight(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps without a stop."""
    out = tmp_path_factory.mktemp("straight")
    Trainer(settings(), open_editor(tiny_editor_path, pixels=1024), RedJudge(), Colours(), out).train()
    return out


def test_a_run_leaves_what_it_should(straight: Path) -> None:
    assert sorted(path.name for path in straight.iterdir()) == [
        ".lock",
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "samples",
        "self_check.json",
        "session.json",
        "tb",
    ]
    names = [f"step_00000{step}" for step in (1, 2, 4)]
    kept = [f"{name}.{kind}" for name in names for kind in ("json", "png")]
    assert sorted(path.name for path in (straight / "samples").iterdir()) == kept
    assert sorted(path.name for path in (straight / "checkpoints").iterdir()) == names[1:]
    rows = read_lines(straight / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert set(rows[0]["drift"].values()) == {0.0}
    assert rows[0]["kl"] == 0 < rows[1]["kl"]
    assert all(row["update_norm"] > 0 and row["grad_norm"] > 0 for row in rows)
    assert set(rows[0]["seconds"]) == {"rollout", "judge", "train", "rest"}
    assert rows[0]["reward_std_within"] > 0


def test_two_steps_and_two_more_are_four_steps(make: Make, straight: Path, tmp_path: Path) -> None:
    make(steps=2).train()
    trainer = make(steps=4)
    assert trainer.step == 2
    trainer.train()
    assert_same_run(tmp_path / "out", straight)


class EasyItems(RedJudge):
    """Two items are solved by every edit; `keys` is what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    def score(self, requests: Sequence[JudgeRequest]) -> list[Score]:
        self.keys.append(requests[0].sample.key)
        solved = self.keys[-1] in ("item-1", "item-3")
        return [Score(1.0)] * len(requests) if solved else super().score(requests)


def test_solved_items_are_never_drawn_again_also_after_a_stop(make: Make, tmp_path: Path) -> None:
    judge, one, two = EasyItems(), EasyItems(), EasyItems()
    whole = make(judge=judge, data__ban_solved=True, steps=6, out=tmp_path / "whole")
    whole.train()
    assert [judge.keys.count(key) for key in ("item-1", "item-3")] == [1, 1]
    assert len(judge.keys) == 12 and min(judge.keys.count(f"item-{i}") for i in (0, 2, 4)) >= 3
    assert [row["banned"] for row in read_lines(whole.out / "metrics.jsonl")][-1] == 2
    make(judge=one, data__ban_solved=True, steps=3, out=tmp_path / "parts").train()
    make(judge=two, data__ban_solved=True, steps=6, out=tmp_path / "parts").train()
    assert one.keys + two.keys == judge.keys
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("the judge fell over")])
def test_what_stops_a_run_within_a_step_costs_only_that_step(
    make: Make, straight: Path, tmp_path: Path, error: BaseException, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(type(error)):
        make(judge=RedJudge(at_call(7, error))).train()  # second group of the fourth step
    assert checkpoint.latest(tmp_path / "out" / "checkpoints") == tmp_path / "out" / "checkpoints" / "step_000003"
    says_how_to_go_on = "Stopped after step 3 of 4. Everything is saved in" in capsys.readouterr().err
    assert says_how_to_go_on == isinstance(error, KeyboardInterrupt)
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_a_run_that_was_killed_loses_the_steps_since_its_checkpoint_but_not_its_exactness(
    make: Make, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make()
    step = trainer.optimizer.step

    def fail_after_the_fourth_update() -> None:
        step()
        if trainer.step == 3:
            raise MemoryError

    monkeypatch.setattr(trainer.optimizer, "step", fail_after_the_fourth_update)
    with pytest.raises(MemoryError):  # half-way through the fourth update: not a state to be saved
        trainer.train()
    assert checkpoint.latest(tmp_path / "out" / "checkpoints") == tmp_path / "out" / "checkpoints" / "step_000002"
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_the_state_after_an_interrupt_in_python_can_be_trained_on(make: Make, straight: Path, tmp_path: Path) -> None:
    trainer = make(judge=RedJudge(at_call(5, KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    trainer.train()
    assert_same_run(tmp_path / "out", straight)


def test_a_disk_that_fills_up_in_a_row_of_metrics_costs_steps_but_not_exactness(
    make: Make, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunLog.write

    def full(log: RunLog, row: StepRow) -> None:
        if row["step"] == 4:
            with log.path.open("a") as file:
                file.write('{"step": 4, "rew')
            raise UserError("No space left on device")
        write(log, row)

    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
        patch.setattr(RunLog, "write", full)
        make().train()
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_a_run_that_trains_the_whole_denoiser_goes_on_exactly(make: Make, tmp_path: Path) -> None:
    whole = {"adapter__mode": "full", "rollout__groups_per_step": 1, "save_every": 1}
    make(steps=1, **whole).train()
    make(steps=3, **whole).train()
    make(out="straight", steps=3, **whole).train()
    assert_same_run(tmp_path / "out", tmp_path / "straight")


def recorded(hand_out: Any, groups: list[Judged], own: Any, judged: list[Judged]) -> Any:
    groups += judged
    return hand_out(own, judged)


def test_a_mixed_judge_given_by_hand_is_mixed_by_its_own_weights(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    dark = RedJudge(lambda call, scores: [Score(1 - (score.value or 0.0) ** 2) for score in scores])
    judge = MixedJudge({"red": (RedJudge(), 1.0), "dark": (dark, 3.0)})
    trainer = make(judge=judge, steps=1, rollout__group_size=4)
    groups: list[Judged] = []
    monkeypatch.setattr(trainer, "_hand_out", partial(recorded, trainer._hand_out, groups))
    trainer.train()
    parts = {name: [group.parts[name] for group in groups] for name in judge.weights}
    expected = mix(parts, {"red": 1.0, "dark": 3.0}, "group")
    assert len(groups) == 2 and all(tensor.abs().max() > 0 for tensor in expected)
    for group, advantages in zip(groups, expected, strict=True):
        assert group.advantages is not None and group.advantages.equal(advantages)


def test_micro_batches_change_nothing_but_rounding(make: Make) -> None:
    norms = []
    for size in (3, 100):
        trainer = make(out=f"out-{size}", steps=2, optim__micro_batch=size)
        trainer.train()
        norms.append([(row["loss"], row["grad_norm"], row["kl"]) for row in read_lines(trainer.out / "metrics.jsonl")])
    assert np.allclose(norms[0], norms[1], rtol=1e-4)


@contextmanager
def counted_rows(editor: Editor) -> Iterator[list[tuple[str, bool, int]]]:
    """(policy, with gradient, rows) of every call of `velocity`."""
    calls: list[tuple[str, bool, int]] = []
    velocity = editor.velocity

    def count(conditioning: Any, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append((editor.policies.active, torch.is_grad_enabled(), len(t)))
        return velocity(conditioning, x_t, t)

    editor.velocity = count  # type: ignore[method-assign]
    yield calls
    del editor.velocity


@pytest.mark.parametrize(("kl", "old_rate"), [(0.0, 0.0), (0.0, 0.3), (0.1, 0.3)])
def test_a_policy_is_asked_only_where_its_answer_is_used(make: Make, kl: float, old_rate: float) -> None:
    trainer = make(steps=3, algorithm__kl=kl, algorithm__old_rate=old_rate, save_every=9)
    starts = []
    with counted_rows(trainer.editor) as calls:
        trainer.train(on_step=lambda row: starts.append(len(calls)))
    trained, old, reference = ("default", True, G * T), ("old", False, G * T), ("reference", False, G * T)
    group = [trained] + [reference] * (kl > 0)
    late = [trained] + [old] * (old_rate > 0) + [reference] * (kl > 0)
    assert calls == 2 * group + 2 * group + 2 * late  # the old policy is the trained one in the first two steps


@pytest.mark.parametrize(
    ("name", "early", "late"),
    [
        ("awm", [], ["old"]),
        ("crd", [], ["old"]),
        ("dgpo", ["reference"], ["reference"]),
        ("dpo", ["reference"], ["reference"]),
        ("rft", [], []),
    ],
)
def test_an_algorithm_asks_no_more_than_its_loss_needs_and_the_sampling_policy_only_off_policy(
    make: Make, name: str, early: list[str], late: list[str]
) -> None:
    trainer = make(steps=3, algorithm__name=name, algorithm__kl=0.0, rollout__groups_per_step=1, save_every=9)
    with counted_rows(trainer.editor) as calls:
        trainer.train()
    edits = 1 if name == "rft" else G  # of two edits, one is better than their mean
    asked = [policy for others in (early, early, late) for policy in ("default", *others)]
    assert calls == [(policy, policy == "default", edits * T) for policy in asked]


def test_a_step_without_a_preference_moves_nothing(make: Make) -> None:
    judge = RedJudge(lambda call, scores: [Score(0.5)] * len(scores))
    for name in ("dpo", "rft"):
        trainer = make(judge=judge, out=name, steps=1, algorithm__name=name)
        trainer.train()
        (row,) = read_lines(trainer.out / "metrics.jsonl")
        assert (row["loss"], row["groups_kept"], row["update_norm"]) == (None, 2, 0)


@pytest.mark.parametrize("name", ONLINE)
def test_every_algorithm_trains_through_the_same_loop_and_goes_on_exactly(
    make: Make, tmp_path: Path, name: str
) -> None:
    changes = {"algorithm__name": name, "rollout__groups_per_step": 1, "save_every": 1}
    make(steps=1, **changes).train()
    make(steps=3, **changes).train()
    make(out="straight", steps=3, **changes).train()
    assert_same_run(tmp_path / "out", tmp_path / "straight")
    rows = read_lines(tmp_path / "out" / "metrics.jsonl")
    assert all(row["update_norm"] > 0 and {"loss", *find_algorithms()[name].parts} <= row.keys() for row in rows)


def test_a_run_of_a_version_without_named_algorithms_is_continued(make: Make, straight: Path, tmp_path: Path) -> None:
    make(steps=2).train()
    file = tmp_path / "out" / "checkpoints" / "step_000002" / "state.json"
    state = json.loads(file.read_text())
    del state["config"]["algorithm"]["name"], state["sha256"], state["seal"]
    state["format"] = 1
    file.write_text(json.dumps(state))
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_a_whole_denoiser_has_a_norm_of_weights_not_of_a_lora(make: Make) -> None:
    trainer = make(steps=1, adapter__mode="full", rollout__groups_per_step=1)
    trainer.train()
    (row,) = read_lines(trainer.out / "metrics.jsonl")
    assert row["weight_norm"] > 0 and "lora_norm" not in row


def test_pictures_of_several_shapes_train_in_one_step_each_in_its_own(
    tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shapes(Colours):
        def __getitem__(self, index: int) -> EditSample:
            sample = super().__getitem__(index)
            return replace(sample, source=sample.source.resize([(32, 32), (96, 32), (32, 96)][index % 3]))

    editor = open_editor(tiny_editor_path, pixels=64 * 64)
    trainer = Trainer(settings(rollout__groups_per_step=3, steps=1), editor, RedJudge(), Shapes(), tmp_path)
    seen: list[tuple[int, ...]] = []
    velocity = editor.velocity
    monkeypatch.setattr(editor, "velocity", lambda c, x, t: seen.append(tuple(c.shape)) or velocity(c, x, t))
    trainer.train()
    row = read_lines(tmp_path / "metrics.jsonl")[0]
    assert (row["groups_kept"], len(set(seen))) == (3, 2)  # 4x4 tokens, and 2x6 either way round
    assert row["grad_norm"] > 0


def test_a_dropped_group_and_an_edit_without_reward_cost_no_call(make: Make) -> None:
    def disturb(call: int, scores: list[Score]) -> list[Score]:
        return (
            [Score(None, "no logits")] * len(scores)
            if call == 0
            else [Score(0.3), Score(0.6), Score(None, "no logits")]
        )

    trainer = make(judge=RedJudge(disturb), steps=1, algorithm__kl=0.0, rollout__group_size=3)
    with counted_rows(trainer.editor) as calls:
        trainer.train()
    assert calls == [("default", True, 2 * T)]
    row = read_lines(trainer.out / "metrics.jsonl")[0]
    assert (row["groups_kept"], row["dropped"], row["unscored"]) == (1, {"no_reward": 1}, 4)
    assert row["reward_mean"] == pytest.approx(0.45)


def test_a_step_without_kept_groups_moves_nothing(make: Make) -> None:
    judge = RedJudge(lambda call, scores: [Score(1.0)] * len(scores))
    trainer = make(judge=judge, steps=1, algorithm__filter="paper")
    before = [param.detach().clone() for param in trainer.params]
    trainer.train()
    row = read_lines(trainer.out / "metrics.jsonl")[0]
    assert (row["loss"], row["kl"], row["groups_kept"], row["update_norm"]) == (None, None, 0, 0)
    assert row["dropped"] == {"agree_and_high": 2}
    assert all(torch.equal(was, now) for was, now in zip(before, trainer.params, strict=True))


def rows_of(trainer: Trainer, group: Group) -> Rows:
    assert group.advantages is not None
    return trainer.rows(group.index, Edits(group.rollout.latents, group.advantages, group.rollout.levels))


def rewarded(trainer: Trainer, missing: set[int] | None = None) -> Group:
    group = trainer.rollout(trainer.dataset[0], index=0)
    count = len(group.rollout.images)
    group.rewards = torch.tensor([math.nan if i in (missing or set()) else i / 4 for i in range(count)])
    assign_advantages([group], trainer.algorithm)
    return group


def test_edits_are_noised_to_levels_that_their_rollout_visited(make: Make) -> None:
    trainer = make(rollout__group_size=4)
    group = rewarded(trainer)
    rows, visited, latents = rows_of(trainer, group), group.rollout.levels, group.rollout.latents
    assert len(visited) == STEPS and visited[0] == 1 and (visited.diff() < 0).all()
    assert rows.t.shape == (4 * T,) and rows.x_t.shape == (4 * T, *latents.shape[1:])
    assert torch.isin(rows.t, visited).all()
    assert all(first != second for first, second in rows.t.view(4, T))
    assert torch.equal(rows.x0, latents.repeat_interleave(T, dim=0))
    at_one = rows.t == 1
    assert at_one.any()
    assert rows.x_t[at_one].std() == pytest.approx(1, abs=0.1)  # there x_t is the noise itself
    below = ~at_one
    eps = (rows.x_t[below] - (1 - rows.t[below, None, None]) * rows.x0[below]) / rows.t[below, None, None]
    assert eps.mean() == pytest.approx(0, abs=0.1) and eps.std() == pytest.approx(1, abs=0.1)


def test_noise_does_not_depend_on_which_edits_have_a_reward(make: Make) -> None:
    trainer = make(rollout__group_size=4)
    every, three = rows_of(trainer, rewarded(trainer)), rows_of(trainer, rewarded(trainer, missing={1}))
    keep = [i for i in range(4 * T) if i // T != 1]
    assert torch.equal(three.x_t, every.x_t[keep]) and torch.equal(three.t, every.t[keep])


def test_draws_differ_between_steps_and_groups(make: Make) -> None:
    trainer = make()
    group = rewarded(trainer)
    rows = rows_of(trainer, group)
    assert not torch.equal(rows_of(trainer, replace(group, index=1)).x_t, rows.x_t)
    trainer.step = 1
    assert not torch.equal(rows_of(trainer, group).x_t, rows.x_t)
    assert not torch.equal(trainer.rollout(trainer.dataset[0], index=0).rollout.latents, group.rollout.latents)


def test_the_first_loss_is_the_formula_of_the_paper(make: Make) -> None:
    trainer = make(steps=1, rollout__groups_per_step=1, algorithm__kl=0.0)
    group = trainer.rollout(trainer.dataset[trainer.collector.sampler.draw(0)[0][0]], index=0)
    assign_rewards(group, trainer.judge.score(requests_of(group)))
    assert group.rewards is not None
    rewards = group.rewards.double()
    r = ((rewards - rewards.mean()) / rewards.std(correction=0) / 5).clamp(-1, 1) / 2 + 0.5
    group.advantages = torch.zeros(G)
    rows = rows_of(trainer, group)
    with torch.no_grad():
        v = trainer.editor.velocity(group.rollout.conditioning, rows.x_t, rows.t).double()
    error = rows.x_t.double() - rows.t[:, None, None] * v - rows.x0
    positive = (error**2).mean((1, 2)) / error.abs().mean((1, 2))  # beta = 1 and v = v_old: both signs give the same x0
    loss = 5 * ((r.repeat_interleave(T) + 1 - r.repeat_interleave(T)) * positive).mean()
    trainer.train()
    assert read_lines(trainer.out / "metrics.jsonl")[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)


def test_training_raises_the_reward(make: Make) -> None:
    """By a judge of red the edits end redder than they began, by its reverse less red."""

    def mean_red(trainer: Trainer, policy: str) -> float:
        with trainer.editor.policies.using(policy):
            rollouts = [trainer.editor.rollout(trainer.dataset[i], 4, steps=STEPS, seed=1) for i in range(2)]
        return float(np.mean([np.asarray(image)[..., 0] / 255 for rollout in rollouts for image in rollout.images]))

    def reverse(call: int, scores: list[Score]) -> list[Score]:
        return [Score(1 - score.value) for score in scores if score.value is not None]

    trainers = {
        name: make(
            name, judge, steps=15, rollout__group_size=6, rollout__groups_per_step=1, optim__lr=0.03,
            algorithm__kl=0.0, algorithm__adv_clip=2.0, save_every=99,
        )
        for name, judge in (("red", RedJudge()), ("reversed", RedJudge(reverse)))
    }  # fmt: skip
    for trainer in trainers.values():
        trainer.train()
    untrained = mean_red(trainers["red"], "reference")
    assert mean_red(trainers["red"], "default") > untrained > mean_red(trainers["reversed"], "default")


def test_a_judge_that_never_answers_stops_the_run_in_words(make: Make, tmp_path: Path) -> None:
    judge = RedJudge(lambda call, scores: [Score(None, "connection refused")] * len(scores))
    with pytest.raises(
        UserError, match=r"no reward for \d+ of the last step's \d+ edits.*last 2 steps: connection refused"
    ):
        make(judge=judge, steps=9, failures__steps=2).train()
    saved = checkpoint.latest(tmp_path / "out" / "checkpoints")
    assert saved is not None and saved.name == "step_000002"
    assert [row["unscored"] for row in read_lines(tmp_path / "out" / "metrics.jsonl")] == [2 * G, 2 * G]


def test_failing_steps_count_in_a_row_only_and_a_share_at_the_limit_does_not(make: Make) -> None:
    half = [Score(None, "slow"), Score(0.1), Score(None, "slow"), Score(0.7)]
    plans = {"whole": [Score(None, "dead")] * 4, "half": half, "good": [Score(i / 4) for i in range(4)]}
    order = ["whole", "good", "whole", "half", "half", "whole"]
    judge = RedJudge(lambda call, scores: plans[order[call]])
    sizes = {"rollout__group_size": 4, "rollout__groups_per_step": 1}
    make(judge=judge, steps=len(order), failures__steps=2, **sizes).train()
    assert judge.calls == len(order)


def test_a_judge_that_answers_too_few_is_not_believed(make: Make) -> None:
    with pytest.raises(UserError, match=r"the judge gave 1 scores for 2 edits; .* one score per request"):
        make(judge=RedJudge(lambda call, scores: scores[1:])).train()


def test_a_gradient_that_is_not_finite_does_not_reach_the_weights(make: Make, tmp_path: Path) -> None:
    trainer = make()
    velocity = trainer.editor.velocity
    trainer.editor.velocity = lambda *inputs: velocity(*inputs) * (math.nan if trainer.step == 2 else 1)  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"gradient of step 3 is not finite.*optim\.lr"):
        trainer.train()
    saved = checkpoint.latest(tmp_path / "out" / "checkpoints")
    assert saved is not None and saved.name == "step_000002"
    assert all(tensor.isfinite().all() for tensor in tensors_of(saved).values())


def test_a_run_with_other_settings_is_not_continued(make: Make) -> None:
    make(steps=1).train()
    with pytest.raises(UserError, match=r"algorithm\.kl: 0\.1 there, 0\.5 here"):
        make(algorithm__kl=0.5)
    assert make(steps=7, optim__micro_batch=1, save_every=1).step == 1


def test_training_ends_before_the_time_is_up_and_earlier_sessions_count(make: Make) -> None:
    trainer = make()
    trainer.train(max_seconds=1e-6)
    assert trainer.step == 1
    again = make()
    assert again.seconds == trainer.seconds > 0
    assert again.train(max_seconds=1e-6).name == "step_000001"
    assert again.step == 1


def test_what_a_callback_raises_costs_no_step(make: Make, straight: Path, tmp_path: Path) -> None:
    def stop(row: StepRow) -> None:
        raise LookupError(row["step"])

    with pytest.raises(LookupError, match="1"):
        make().train(on_step=stop)
    make().train()
    assert_same_run(tmp_path / "out", straight)


def test_the_average_has_the_rate_and_the_warm_up_of_the_settings(make: Make) -> None:
    warm, plain = make(ema=0.99).ema, make(ema=0.99, ema_warmup=False, out="plain").ema
    assert [each.decay_after(0) for each in (warm, plain)] == [0.1, 0.99]


def test_diffusers_loads_policy_and_average_and_edits_alike(make: Make, tiny_editor_path: Path) -> None:
    trainer = make(steps=2, optim__lr=0.05, save_every=1)
    folder = trainer.train()
    sample = trainer.dataset[1]

    def latents(editor: Editor) -> torch.Tensor:
        return editor.rollout(sample, 2, steps=STEPS, seed=3).latents

    trained = latents(trainer.editor)
    with trainer.ema.swap():
        average = latents(trainer.editor)
    plain = latents(open_editor(tiny_editor_path, pixels=1024))
    for name, expected in (("policy", trained), ("ema", average)):
        pipe = DiffusionPipeline.from_pretrained(tiny_editor_path)
        pipe.load_lora_weights(folder / name)
        loaded = latents(Editor(pipe, trainer.editor.family, pixels=1024))
        assert torch.allclose(loaded, expected, atol=1e-5)
        assert not torch.allclose(loaded, plain, atol=1e-3)
    assert not torch.allclose(trained, average, atol=1e-4)
