import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch

from editr1.config.loading import load_config
from editr1.config.settings import Config
from editr1.errors import UserError
from editr1.files import write_file
from editr1.training import checkpoint
from editr1.training.interrupts import Interrupts
from editr1.training.seal import read_state


def two_files(folder: Path) -> None:
    (folder / "inner").mkdir()
    (folder / "a.bin").write_bytes(b"a" * 1000)
    (folder / "inner" / "b.bin").write_bytes(b"b" * 10)


def save(root: Path, step: int, keep: int = 9) -> Path:
    return checkpoint.save(root, step, {"seconds": step / 2, "start": {}, "config": {}}, two_files, keep)


def test_what_was_saved_is_found_again_with_its_state(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    folder = save(tmp_path, 3)
    assert folder == tmp_path / "step_000003" == checkpoint.latest(tmp_path)
    state = read_state(folder)
    assert (state["step"], state["seconds"]) == (3, 1.5)
    assert state["files"] == {"a.bin": 1000, "inner/b.bin": 10}


def test_the_newest_ones_stay_by_number_not_by_name(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000, 1_000_001):
        save(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_1000000", "step_1000001"]
    assert checkpoint.latest(tmp_path) == tmp_path / "step_1000001"


def test_saving_a_step_again_changes_nothing(tmp_path: Path) -> None:
    before = (save(tmp_path, 1) / "state.json").stat().st_mtime_ns
    assert (save(tmp_path, 1) / "state.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["cut", "missing", "no state", "broken state"])
def test_a_damaged_checkpoint_is_passed_over_and_can_be_written_anew(tmp_path: Path, damage: str) -> None:
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    if damage == "cut":
        (bad / "a.bin").write_bytes(b"a" * 999)
    elif damage == "missing":
        (bad / "inner" / "b.bin").unlink()
    elif damage == "no state":
        (bad / "state.json").unlink()
    else:
        (bad / "state.json").write_text('{"step": 2')
    assert checkpoint.latest(tmp_path) == good
    save(tmp_path, 2)
    assert checkpoint.latest(tmp_path) == bad


def test_a_run_without_a_whole_checkpoint_is_no_new_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoint.newest(tmp_path) is None
    checkpoint.refuse_lost(tmp_path)
    good, bad = save(tmp_path, 1), save(tmp_path, 2)
    (bad / "a.bin").write_bytes(b"b" * 1000)
    checkpoint.refuse_lost(tmp_path)  # by their sizes both are whole
    assert checkpoint.latest(tmp_path) == bad and checkpoint.open_part(tmp_path, "inner") == bad
    assert checkpoint.newest(tmp_path) == checkpoint.latest(tmp_path) == good
    (good / "state.json").unlink()
    assert "damaged_step_000002, and step_000001 is used" in capsys.readouterr().err
    for act in (checkpoint.newest, checkpoint.refuse_lost):
        with pytest.raises(UserError, match=r"none of the checkpoints in .* is whole \(.*step_000001/state\.json"):
            act(tmp_path)
    assert good.is_dir()


def test_a_second_damaged_checkpoint_of_a_step_has_a_name_of_its_own(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for _ in range(3):
        (save(tmp_path, 2) / "a.bin").write_bytes(b"b" * 1000)
        checkpoint.newest(tmp_path)
    names = ["damaged_step_000002", "damaged_step_000002.2", "damaged_step_000002.3", "step_000001"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("call", ["fsync", "write"])
def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    good = save(tmp_path, 1)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if call == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match=r"step_000002: .*No space left"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    assert checkpoint.latest(tmp_path) == good


WRITER = """
    import resource, sys, time
    from pathlib import Path
    import torch
    from safetensors.torch import save_file
    from editr1.training import checkpoint
    from editr1.errors import UserError

    def write(folder):
        save_file({"x": torch.zeros(100_000)}, folder / "big.safetensors")

    def write_half(folder):
        write(folder)
        print("writing", flush=True)
        time.sleep(60)

    root, state = Path(sys.argv[1]), {"seconds": 0, "start": {}, "config": {}}
    checkpoint.save(root, 1, state, write, 3)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        checkpoint.save(root, 2, state, write, 3)
    except UserError as error:
        print(error, [path.name for path in root.iterdir()], flush=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    checkpoint.save(root, 2, state, write_half, 3)
"""


def test_a_disk_that_takes_half_a_file_and_a_kill_leave_the_previous_checkpoint(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("cannot write the checkpoint") and said.endswith("['step_000001']\n")
        assert process.stdout.readline() == "writing\n"
        process.kill()
    assert (tmp_path / ".step_000002.part" / "big.safetensors").exists()
    assert checkpoint.latest(tmp_path) == tmp_path / "step_000001"
    save(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000003"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sub" / "file"
    write_file(path, b"old")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


def adamw(seed: int) -> tuple[list[torch.nn.Parameter], torch.optim.AdamW]:
    generator = torch.Generator().manual_seed(seed)
    params = [torch.nn.Parameter(torch.randn(3, 2, generator=generator)), torch.nn.Parameter(torch.randn(5))]
    return params, torch.optim.AdamW(params, lr=0.1)


def optimise(params: list[torch.nn.Parameter], optimizer: torch.optim.AdamW, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        torch.stack([(param**2 + param).sum() for param in params]).sum().backward()
        optimizer.step()


def test_an_optimizer_goes_on_exactly_where_it_was() -> None:
    params, optimizer = adamw(0)
    optimise(params, optimizer, 3)
    tensors = {name: value.clone() for name, value in checkpoint.optimizer_tensors(optimizer, ["a.w", "b.w"]).items()}
    assert set(tensors) == {f"{q}.{n}" for q in ("step", "exp_avg", "exp_avg_sq") for n in ("a.w", "b.w")}
    again, fresh = adamw(1)
    with torch.no_grad():
        for new, old in zip(again, params, strict=True):
            new.copy_(old)
    checkpoint.restore_optimizer(fresh, ["a.w", "b.w"], tensors)
    optimise(params, optimizer, 4)
    optimise(again, fresh, 4)
    assert all(torch.equal(new, old) for new, old in zip(again, params, strict=True))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_interrupts_but_waits_for_the_end_of_a_held_block(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
            time.sleep(5)
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            os.kill(os.getpid(), number)
            time.sleep(0.01)
            done.append("held")
        with interrupts.held():
            done.append("quiet")
    assert done == ["held", "quiet"]
    assert signal.getsignal(number) == before


def test_a_run_may_go_on_with_other_endpoints_but_not_with_another_method() -> None:
    servers = ["judge.path=null", "judge.model=m"]
    config = load_config("toy", [*servers, "judge.endpoints=[http://a/v1]"])
    moved = load_config("toy", [*servers, "judge.endpoints=[http://b/v1, http://c/v1]", "judge.in_flight=4"])
    assert checkpoint.changed_settings(config.model_dump(mode="json"), moved) == ""
    other = load_config("toy", [*servers, "judge.endpoints=[http://a/v1]", "judge.method=yes_no"])
    assert (
        checkpoint.changed_settings(config.model_dump(mode="json"), other)
        == "judge.method: score_logit there, yes_no here"
    )


def test_a_run_may_go_on_with_a_reward_that_has_become_optional_and_a_second_judge_elsewhere() -> None:
    other = "judge: {endpoints: [http://%s/v1], model: m, method: %s}"
    words = "rewards={mine: {kind: function, path: 'm:f', optional: %s}, other: {kind: judge, " + other + "}}"
    before = load_config("toy", [words % ("false", "a", "yes_no")]).model_dump(mode="json")
    assert checkpoint.changed_settings(before, load_config("toy", [words % ("true", "b", "yes_no")])) == ""
    changed = checkpoint.changed_settings(before, load_config("toy", [words % ("true", "b", "score_logit")]))
    assert changed == "rewards.other.judge.method: yes_no there, score_logit here"


def test_settings_that_a_later_version_adds_do_not_keep_a_run_from_going_on() -> None:
    config = load_config("toy")
    tree = config.model_dump(mode="json")
    for section, name in (("data", "changed"), ("data", "ban_solved"), ("memory", "attention"), ("optim", "betas")):
        del tree[section][name]
    del tree["failures"], tree["evaluation"], tree["rewards"]
    assert checkpoint.changed_settings(tree, config) == ""
    changed = checkpoint.changed_settings(tree, load_config("toy", ["data.ban_solved=true"]))
    assert changed == "data.ban_solved: False there, True here"


def test_a_run_keeps_the_warm_up_of_its_average_which_one_of_an_earlier_version_has() -> None:
    config, plain = load_config("toy"), load_config("toy", ["ema_warmup=false"])
    tree = config.model_dump(mode="json")
    del tree["ema_warmup"]
    assert checkpoint.changed_settings(tree, config) == ""
    assert checkpoint.changed_settings(tree, plain) == "ema_warmup: True there, False here"


def test_the_code_of_another_runs_algorithm_is_not_loaded_to_compare_settings() -> None:
    config = load_config("toy")
    tree = {**config.model_dump(mode="json"), "algorithm": {"name": "tests.no_such_module:Loss"}}
    assert checkpoint.changed_settings(tree, config) == "algorithm.name: tests.no_such_module:Loss there, nft here"


def test_a_run_may_go_on_with_pictures_elsewhere_as_their_contents_are_compared() -> None:
    tree = load_config("toy").model_dump(mode="json")
    assert checkpoint.changed_settings(tree, load_config("toy", ["data.root=/far"])) == ""


def test_a_run_of_an_earlier_version_whose_rewards_hold_the_nulls_of_other_kinds_may_go_on() -> None:
    config = load_config("toy", ["rewards={text: {kind: ocr}, mine: {kind: function, path: 'm:f'}}"])
    tree = config.model_dump(mode="json")
    assert tree["rewards"]["text"] == {"weight": 1.0, "weight_by_task": {}, "kind": "ocr", "optional": True}
    nulls = {"path": None, "lora": None, "judge": None}
    for reward in tree["rewards"].values():
        del reward["optional"], reward["weight_by_task"]  # which are newer
    tree["rewards"] = {name: {**nulls, **reward} for name, reward in tree["rewards"].items()}
    assert checkpoint.changed_settings(tree, config) == "" and Config.model_validate(tree) == config


def test_a_run_of_an_earlier_version_goes_on_with_the_preservation_reward_that_it_had() -> None:
    tree = load_config("toy", ["rewards.kept={kind: preservation}"]).model_dump(mode="json")
    del tree["rewards"]["kept"]["masks"], tree["rewards"]["kept"]["whole_tasks"]  # which are newer
    same = load_config("toy", ["rewards.kept={kind: preservation, masks: edit}"])
    other = load_config("toy", ["rewards.kept={kind: preservation}"])
    assert checkpoint.changed_settings(tree, same) == ""
    assert checkpoint.changed_settings(tree, other) == "rewards.kept.masks: edit there, either here"


def test_the_settings_that_pin_what_was_measured_tell_algorithms_and_kinds_of_rewards_apart() -> None:
    usual, other = load_config("toy"), load_config("toy", ["algorithm.name=crd"])
    assert "algorithm.name" not in checkpoint.fixed_settings(usual)
    assert checkpoint.fixed_settings(other) == {**checkpoint.fixed_settings(usual), "algorithm.name": "crd"}
    kept = load_config("toy", ["rewards.extra={kind: preservation}"])
    assert checkpoint.fixed_settings(kept) == {
        **checkpoint.fixed_settings(usual),
        "rewards.extra.kind": "preservation",
    }
    optional = load_config("toy", ["rewards.extra={kind: preservation, optional: true}"])
    assert checkpoint.fixed_settings(optional) == checkpoint.fixed_settings(kept)
