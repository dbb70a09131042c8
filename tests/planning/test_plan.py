"""`editr1 plan` against what is measured and counted elsewhere, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from editr1.cli.main import app
from editr1.config.loading import load_config
from editr1.config.rewards import KINDS as KINDS_OF_REWARD
from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.planning.blocks import cuts
from editr1.planning.gpus import KINDS, Gpus, Kind, parse_gpus
from editr1.planning.judging import judge_cost
from editr1.planning.pipelines import blueprint_of, shipped
from editr1.planning.plan import Planner, rehearsed
from editr1.planning.ranks import Spread
from editr1.planning.rehearsal import Step
from editr1.planning.shadow import Work
from editr1.planning.uncounted import COSTS, uncounted
from editr1.planning.workload import Pace, calls_of, load_of
from editr1.training.distributed import World
from tests.benchmarks.scripts import script

FULL, ONE_GROUP = "adapter.mode=full", ["rollout.groups_per_step=1"]


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    """benchmarks/plan_check.py."""
    with script("plan_check") as module:
        yield module


def planner(name: str, gpus: str, *overrides: str) -> Planner:
    return Planner(lambda more: load_config(name, [*overrides, *more]), parse_gpus(gpus))


CASES = [
    ("toy", False, True),
    ("toy_flux_kontext", True, False),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in (("toy", True, True), ("toy", False, False))),
    *(pytest.param("toy_flux_kontext", *case, marks=pytest.mark.slow) for case in ((False, True), (True, True))),
]


@pytest.mark.parametrize(("name", "checkpointing", "kl"), CASES)
def test_planned_memory_is_within_15_percent_of_what_torchs_profiler_sees(
    check: ModuleType, name: str, checkpointing: bool, kl: bool, tmp_path: Path
) -> None:
    overrides = [*check.settings_of(checkpointing, kl), "rollout.group_size=4", "rollout.steps=3"]
    planned = check.plan_of(name, overrides, 1).peak * 1e9
    measured = check.measure(load_config(name, [*overrides, f"out={tmp_path}"]), World(), timed=1)
    assert planned == pytest.approx(measured["peak"], rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy", "toy_flux_kontext"])
@pytest.mark.parametrize("more", [[], ["parallel.shard=2"], ["parallel.shard=2", FULL], ["parallel.context=2"]])
def test_planned_memory_of_two_processes_is_within_15_percent_of_the_fuller_one(
    check: ModuleType, name: str, more: list[str]
) -> None:
    row = check.case(name, [*check.settings_of(FULL not in more, True), "rollout.steps=3", *more], 2)
    assert row["memory_ratio"] == pytest.approx(1, abs=0.15)


def few_blocks(name: str, spread: Spread, *overrides: str) -> Step:
    """The rehearsed step of a process with two of the denoiser's blocks."""
    run = planner(name, "H100-80G", *overrides, *ONE_GROUP)
    config, blocks = run._settings(()), run._stage.blueprint.blocks
    return run._stage.rehearse(rehearsed(config, load_of(config, 1)), cuts(blocks)[0], spread)


def test_a_rank_holds_its_share_of_the_weights_and_gets_the_others_in_every_call(check: ModuleType) -> None:
    """A step of training with kl: forward and backward pass, and calls of "old" and "reference", gather all weights.

    A rollout gathers them three times, or once where they stay.
    """
    settings = [*check.settings_of(False, True), "rollout.steps=3"]
    step, keeping = (few_blocks("toy", Spread(8, keeps_gathered=keeps), *settings) for keeps in (False, True))
    weights = 4 * step.parameters  # float32
    others = weights * 7 / 8
    assert step.held["denoiser"] == pytest.approx(weights / 8, rel=0.02)
    assert step.work["train"].weights == pytest.approx(4 * others, rel=0.02)
    assert step.work["denoise"].weights + step.work["rest"].weights == pytest.approx(3 * others, rel=0.02)
    assert keeping.work["denoise"].weights == pytest.approx(step.work["denoise"].weights / 3)
    assert keeping.work["denoise"].peak > step.work["denoise"].peak
    assert keeping.group == pytest.approx(step.group, rel=0.02)


def test_ranks_that_share_tokens_compute_their_share_of_a_call(check: ModuleType) -> None:
    settings = [*check.settings_of(False, True), "rollout.steps=3"]
    alone, shared = (few_blocks("toy", Spread(context=count), *settings) for count in (1, 2))
    for name in ("denoise", "train"):
        assert shared.work[name].flops == pytest.approx(alone.work[name].flops / 2, rel=0.1)
        assert shared.work[name].tokens > 0 == alone.work[name].tokens


def test_weights_arrive_while_a_rank_computes_but_tokens_are_waited_for() -> None:
    pace = Pace(flops=10.0, weights=5.0, tokens=2.0)
    assert pace.seconds(Work(flops=20.0, weights=30.0, tokens=4.0)) == 6 + 2
    assert pace.seconds(Work(flops=80.0, weights=30.0, tokens=4.0)) == 8 + 2


@pytest.mark.parametrize(("ranks", "weights", "tokens"), [(8, 450, 450), (16, 400, 50)])
def test_the_gpus_of_a_node_share_its_network(ranks: int, weights: float, tokens: float) -> None:
    gpus = parse_gpus("8xH100-80G", nodes=2)
    assert (gpus.weights(ranks), gpus.tokens(ranks)) == (weights, tokens)


@pytest.mark.parametrize(
    ("std", "ranks", "remote", "waiting"),
    [("group", 1, False, 0), ("group", 1, True, 23), ("group", 8, False, 2), ("global", 1, False, 23)],
)
def test_a_group_waits_with_its_latents_unless_it_is_trained_on_at_once(
    std: str, ranks: int, remote: bool, waiting: int
) -> None:
    config = load_config("qwen_image_edit_2509", [f"algorithm.std={std}"])
    assert load_of(config, ranks, remote).waiting == waiting


def test_weights_are_spread_over_a_node_before_they_are_quantised_which_cannot_be_spread() -> None:
    config = load_config("flux2_klein")
    spread, quantised = planner("flux2_klein", "8xRTX4090-24G").ways(config)
    assert spread.index("parallel.shard=8") < spread.index("memory.offload=true")
    assert "memory.quantize=nf4" in quantised
    assert not any("quantize" in change for change in spread) and not any("shard" in change for change in quantised)
    assert planner("flux2_klein", "1xRTX4090-24G").ways(config) == [quantised]


@pytest.mark.parametrize(("algorithm", "fewest"), [("nft", 1), ("dpo", 2), ("crd", 6)])
def test_the_smallest_micro_batch_that_the_algorithm_allows_is_tried(algorithm: str, fewest: int) -> None:
    """Of dpo it is a pair of edits, and of crd the whole group: with fewer, a config is refused."""
    settings = f"algorithm.name={algorithm}", "rollout.group_size=6"
    ways = planner("toy", "H100-80G", *settings).ways(load_config("toy", [*settings]))
    assert all(f"optim.micro_batch={fewest}" in changes for changes in ways)
    assert load_config("toy", [*settings, f"optim.micro_batch={fewest}"]).optim.micro_batch == fewest


def test_a_change_that_a_run_refuses_does_not_end_the_search() -> None:
    settings = "algorithm.name=crd", "rollout.group_size=4", "rollout.steps=3", "optim.micro_batch=4"

    def refusing(more: Sequence[str]) -> Config:
        if "memory.gradient_checkpointing=true" in more:
            raise UserError("not here")
        return load_config("toy", [*settings, *more])

    run = Planner(refusing, Gpus(Kind("small", 0.08, 100, 50, 50, 50), 1))
    plan = run.plan()
    changes, changed = run.fit(plan)
    assert not plan.fits and changed.fits
    assert changes == ["memory.offload=true", "memory.cache=cache"]


@pytest.mark.long
def test_flux2_klein_can_be_trained_on_quantised_weights() -> None:
    """Its layers have no biases: the first weights in a number format of their own would be those of the LoRA."""
    step = few_blocks("flux2_klein", Spread(), "memory.quantize=nf4", "rollout.group_size=4")
    assert step.held["denoiser"] == pytest.approx(step.parameters * (0.5 + 4 / 64), rel=0.05)


@pytest.mark.parametrize(
    ("hub", "billions"),
    [
        ("Qwen/Qwen-Image-Edit", 20.43),
        ("Qwen/Qwen-Image-Edit-2509", 20.43),
        ("Qwen/Qwen-Image-Edit-2511", 20.43),
        ("black-forest-labs/FLUX.1-Kontext-dev", 11.90),
        ("black-forest-labs/FLUX.2-klein-base-4B", 3.88),
        ("meituan-longcat/LongCat-Image-Edit", 6.27),
    ],
)
def test_shipped_sizes_are_those_of_the_published_denoisers(hub: str, billions: float) -> None:
    blueprint = blueprint_of(hub)
    weights = blueprint.build_denoiser(blueprint.blocks).parameters()
    assert sum(weight.numel() for weight in weights) / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.slow
def test_planned_operations_of_kontext_are_those_of_all_blocks_counted_at_once() -> None:
    """By torch's flop counter on the meta device, of the denoiser without a LoRA, which adds about 1 %."""
    path = Path(__file__).parents[2] / "scripts" / "real_run.py"
    spec = spec_from_file_location("real_run", path)
    assert spec is not None and spec.loader is not None
    real_run = module_from_spec(spec)
    spec.loader.exec_module(real_run)
    parameters, forward, backward = real_run.count(real_run.kontext)
    plan = planner("flux_kontext", "8xH100-80G", "memory.gradient_checkpointing=false").plan()
    assert plan.step.parameters == parameters
    assert plan.tflops["denoise"] / (plan.load.edits * 6) == pytest.approx(forward / 1e12, rel=0.02)
    assert plan.tflops["train"] / plan.load.rows == pytest.approx((3 * forward + backward) / 1e12, rel=0.03)


def test_every_preset_of_an_editor_can_be_planned() -> None:
    presets = ("qwen_image_edit", "qwen_image_edit_2509", "qwen_image_edit_2511", "flux_kontext", "flux2_klein")
    paths = {load_config(name).editor.path for name in (*presets, "longcat_image_edit")}
    assert paths <= shipped().keys()


def test_edits_that_are_left_out_are_no_rows() -> None:
    assert load_of(load_config("qwen_image_edit_2509", ["algorithm.informative=0.5"]), 1).rows == 720


@pytest.mark.parametrize(("ranks", "calls", "edits", "rows"), [(1, 24, 288, 1440), (8, 3, 36, 180), (48, 1, 6, 30)])
def test_the_load_of_a_process_is_its_share_of_the_papers_step(ranks: int, calls: int, edits: int, rows: int) -> None:
    load = load_of(load_config("qwen_image_edit_2509"), ranks)
    assert (load.calls, load.edits, load.rows) == (calls, edits, rows)


def test_small_shares_are_widened_but_the_judge_is_asked_about_each_edit_once() -> None:
    calls = calls_of(load_config("qwen_image_edit_2509"), 288)
    assert calls == [[(4, 1)]] * 288


@pytest.mark.parametrize(
    "kept",
    ["preservation={}", "preservation={masks: group}", "rewards={kept: {kind: preservation}}", "judge.method=ranking"],
)
def test_groups_that_are_judged_as_a_whole_are_not_split(kept: str) -> None:
    calls = calls_of(load_config("qwen_image_edit_2509", [kept]), 48)
    assert sorted(calls) == [[]] * 24 + [[(12, 12)]] * 24


def test_masks_of_the_data_leave_groups_to_be_split() -> None:
    calls = calls_of(load_config("qwen_image_edit_2509", ["preservation={masks: data}"]), 48)
    assert calls == [[(6, 6)]] * 48


SEVEN, SERVED = "{path: m/Qwen2.5-VL-7B-Instruct}", "{endpoints: ['http://h/v1'], model: own}"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (f"rewards={{a: {{kind: judge, judge: {SEVEN}}}}}", "rewards.a (judge): about 16.8 GB and the time of m/Qwen"),
        (f"rewards={{a: {{kind: judge, judge: {SERVED}}}}}", "rewards.a (judge): own on GPUs of its own"),
        ("rewards={a: {kind: clip_image, path: m}}", "rewards.a (clip_image): time and memory of a model in each"),
        ("rewards={a: {kind: ocr}}", "rewards.a (ocr): its time on the CPU"),
        (f"watch={{judge: {SERVED}, every: 6}}", "watch.judge, for one of 6 edits: own on GPUs of its own"),
        ("watch={judge: {path: mine}}", "watch.judge, for one of 4 edits: memory and time of mine in each"),
        ("preservation={features: dino, masks: data}", "preservation.features: time and memory of a model"),
        ("judge.source_size=original", "judge.source_size=original: the judge's sources are counted at"),
        ("algorithm.std=group", "algorithm.std=group: one process trains on a group while later ones are judged"),
    ],
)
def test_a_setting_that_is_not_counted_has_a_line(setting: str, words: str) -> None:
    lines = uncounted(load_config("qwen_image_edit_2509", [setting]), "elsewhere", 1)
    assert lines[-1].startswith(words)


def test_every_kind_of_reward_has_its_words() -> None:
    assert COSTS.keys() | {"judge", "product"} == KINDS_OF_REWARD.keys()


def test_a_plain_run_has_nothing_that_is_not_counted() -> None:
    config = load_config("qwen_image_edit_2509")
    assert uncounted(config, "elsewhere", 1) == []
    assert uncounted(config, "none", 1) == ["judge Qwen/Qwen2.5-VL-32B-Instruct: left out by --judge none"]


def test_a_question_takes_two_operations_per_parameter_and_token() -> None:
    cost = judge_cost(load_config("qwen_image_edit_2509"))
    assert cost is not None
    assert (cost.parameters, cost.tokens, cost.questions) == (32e9, 2 * 18 * 18 + 300, 1)
    assert cost.flops == 2 * 32e9 * 948
    assert [cost.gpus(KINDS[name]) for name in ("H200-141G", "H100-80G", "RTX4090-24G")] == [1, 1, 4]


@pytest.mark.parametrize(
    ("gpus", "overrides", "words"),
    [
        ("8xH100-80G", ["memory.compile=true"], "memory.compile=true cannot be planned"),
        ("8xH100-80G", ["memory.attention=flash"], "memory.attention=flash cannot be planned"),
        ("8xH100-80G", ["parallel.shard=3"], "parallel.shard=3: 8 GPUs are no multiple of it"),
        ("8xH100-80G", ["parallel.context=16"], "parallel.context=16: 8 GPUs are no multiple of it"),
        ("5xH100-80G", ["parallel.context=5"], "parallel.context=5 does not divide the 24 attention heads"),
        ("8xH100-80G", ["rollout.most_groups=48"], "rollout.most_groups=48 cannot be planned"),
        ("8xH100-80G", ["algorithm.kl_share=0.5"], "algorithm.kl_share below 1 cannot be planned"),
        ("8xH100-80G", ["rollout.scouts=24"], "rollout.scouts=24 cannot be planned"),
        ("8xH100-80G", ["editor.path=someone/editor"], "its sizes are not shipped"),
        ("8xABACUS", [], "--gpus '8xABACUS': give a number and a kind"),
        ("0xH100-80G", [], "--gpus '0xH100-80G': give a number and a kind"),
    ],
)
def test_what_the_planner_does_not_know_it_refuses_in_words(gpus: str, overrides: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        planner("flux2_klein", gpus, *overrides).plan()


@pytest.mark.parametrize(
    ("setting", "words"), [("judge.method=cot_logit", "length of its answers"), ("judge.model=mine", "no size")]
)
def test_a_judge_of_unknown_cost_is_refused_in_words(setting: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        judge_cost(load_config("qwen_image_edit_2509", [setting]))


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, ["plan", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.mark.slow
def test_klein_fits_on_24_gb_by_the_changes_that_are_named() -> None:
    facts = run("flux2_klein", "--gpus", "1xRTX4090-24G", "--price", "0.5", "optim.micro_batch=12")
    assert facts["denoiser"]["parameters"] == pytest.approx(3.88e9, rel=0.01)
    assert facts["peak_memory_gb"] == max(facts["memory_gb"]["stages"].values())
    assert facts["fits"] is False and facts["changed"]["fits"] is True
    changed = planner("flux2_klein", "RTX4090-24G", "optim.micro_batch=12").plan(facts["changes"])
    assert changed.peak == pytest.approx(facts["changed"]["peak_memory_gb"])
    assert facts["judge"]["replicas"] >= 1
    assert facts["seconds_per_step"] >= sum(facts["seconds"].values())
    assert facts["images_per_gpu_second"] == pytest.approx(288 / facts["seconds_per_step"])
    gpus, better = 1 + facts["judge"]["gpus"], facts["changed"]
    assert better["cost"] == pytest.approx(0.5 * gpus * 1000 * better["seconds_per_step"] / 3600)


@pytest.mark.slow
def test_qwen_is_planned_on_24_gb_with_what_makes_it_fit() -> None:
    result = CliRunner().invoke(app, ["plan", "qwen_image_edit_2509", "--gpus", "1xRTX4090-24G"])
    assert result.exit_code == 0, result.output
    head, _, rest = result.output.partition("fits with  ")
    assert ": does not fit" in head and "hours" not in head  # what cannot run takes no hours
    assert {"memory.offload=true", "memory.quantize=nf4"} <= set(rest.partition("\n")[0].split())
    assert ": fits" in rest and " of 24 per GPU" in rest and "hours" in rest


def test_a_toy_is_planned_and_told_in_lines() -> None:
    """Its reward is no judge: none is said to be beside the trainers, and what the reward takes is named."""
    other = "judge=null", "rewards={text: {kind: ocr}}"
    result = CliRunner().invoke(app, ["plan", "toy", "--gpus", "H100-80G", *other])
    assert result.exit_code == 0, result.output
    assert "0.01 billion parameters" in result.output and ": fits, leaving aside what is not counted" in result.output
    assert "judge      none\n" in result.output
    assert "NOT COUNTED: rewards.text (ocr): its time on the CPU" in result.output
    assert "planned, not measured" in result.output
