"""Settings of an algorithm whose sampler adds noise: what goes with it, and what is refused in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.config.loading import dump_config, load_config
from editr1.errors import UserError

GRPO = "algorithm.name=grpo"


def test_a_preset_takes_grpo_by_its_name_alone_and_states_the_sampler_that_it_uses(tmp_path: Path) -> None:
    config = load_config("toy", [GRPO])
    assert config.rollout.scheduler == "euler" and load_config("toy").rollout.scheduler == "dpm2"
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config
    assert load_config("toy", [GRPO, "rollout.scheduler=euler"]) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "rollout.scheduler=dpm2",
            "rollout.scheduler='dpm2': algorithm 'grpo' needs 'euler'; leave rollout.scheduler out",
        ),
        ("rollout.scouts=24", "rollout.scouts=24 needs edits that follow from their first noise alone"),
        ("algorithm.timesteps=uniform", "algorithm.timesteps: Input should be 'sampler', not 'uniform'"),
        ("algorithm.window=6", "algorithm.window=6: the last of rollout.steps=6 has no noise; give at most 5"),
        ("algorithm.window=1", "timesteps_per_image=2: an edit has noise in 1 of its steps; give that, or null"),
        ("algorithm.noise_level=1.5", "algorithm.noise_level: Input should be less than or equal to 1"),
        ("algorithm.noise_kind=ode", "algorithm.noise_kind: Input should be 'flow' or 'cps', not 'ode'"),
        ("algorithm.beta=1", "unknown key algorithm.beta"),
    ],
)
def test_settings_that_make_no_sense_with_it_are_refused_in_one_line(override: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        load_config("toy", [GRPO, override])
    assert words in str(refused.value) and "\n" not in str(refused.value)
