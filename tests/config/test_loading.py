import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from editr1.algorithms.nft import NFT
from editr1.config.loading import dump_config, known_keys, load_config, nearest_key, parse_override
from editr1.config.presets import additions, presets, read_preset
from editr1.config.settings import Config
from editr1.errors import UserError

MINIMAL = "editor: {path: e}\njudge: {path: j}\ndata: {path: d}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def message(path: str | Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", presets())
def test_every_shipped_preset_loads_and_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config


def test_defaults_are_the_papers(file: Path) -> None:
    config = load_config(file)
    assert (config.rollout.group_size, config.rollout.groups_per_step, config.rollout.steps) == (12, 24, 6)
    assert (config.optim.lr, config.optim.betas, config.ema) == (3e-4, (0.9, 0.999), 0.9)
    assert isinstance(config.algorithm, NFT)
    assert (config.algorithm.beta, config.algorithm.kl, config.algorithm.adv_clip) == (1.0, 1e-4, 5.0)
    assert (config.algorithm.tau_mu, config.algorithm.tau_sigma, config.algorithm.std) == (0.9, 0.05, "global")
    assert (config.adapter.rank, config.adapter.alpha, config.editor.pixels) == (32, 64, 512 * 512)
    assert config.algorithm.levels_per_edit(config.rollout.steps) == 5


def test_overrides_lie_over_the_file_and_the_last_one_wins(file: Path) -> None:
    file.write_text(MINIMAL + "steps: 7\noptim: {lr: 1e-4}\n")
    config = load_config(file, ["optim.lr=5e-4", "optim.lr=2e-3", "adapter.targets=[to_q, to_k]", "out=123", "ema=0"])
    assert (config.steps, config.optim.lr, config.ema) == (7, 2e-3, 0.0)
    assert config.adapter.targets == ("to_q", "to_k")
    assert config.out == Path("123")


@pytest.mark.parametrize("name", presets())
@pytest.mark.parametrize("addition", additions())
def test_an_addition_lies_over_any_preset_and_what_comes_later_over_it(name: str, addition: str) -> None:
    plain, config = load_config(name), load_config(name, [addition])
    changed = {key for key, value in config.model_dump().items() if value != plain.model_dump()[key]}
    assert changed == {*yaml.safe_load(read_preset(addition))}
    assert load_config(name, [addition, "rewards.kept.weight=2"]).rewards["kept"].weight == 2


def test_an_addition_keeps_what_else_its_sections_hold() -> None:
    config = load_config("toy", ["rewards={text: {kind: ocr}}", "preservation={features: models/dino}", "+preserve"])
    assert [*config.rewards] == ["text", "kept"]
    assert config.preservation is not None and config.preservation.features == "models/dino"


def test_an_addition_overwrites_nothing_that_is_there_already(tmp_path: Path) -> None:
    own = yaml.safe_load(read_preset("toy"))
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**own, "rewards": {"kept": {"kind": "ocr"}}}))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path / "own.yaml", ["+preserve"])
    assert str(caught.value) == (
        f"+preserve sets rewards.kept to {{'kind': 'preservation', 'weight': 0.3}}, but {tmp_path}/own.yaml has "
        "{'kind': 'ocr'}; leave one of them out (what comes after +preserve may change it)"
    )
    told = r"^\+preserve sets preservation\.masks to 'either', but override preservation=\{masks: data\} has 'data'; "
    with pytest.raises(UserError, match=told):
        load_config("toy", ["preservation={masks: data}", "+preserve"])
    assert load_config("toy", ["+preserve", "+preserve"]) == load_config("toy", ["+preserve"])
    assert load_config("toy", ["rewards=null", "preservation=null", "+preserve"]) == load_config("toy", ["+preserve"])


UNTOUCHED = ": an edit that changes nothing gets the most; give a judge or a reward that wants the edit done too"


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["+preserve"], "rewards.kept"),
        (["rewards={a: {kind: preservation}, b: {kind: clip_image, path: x}}"], "rewards.a, rewards.b"),
        (["rewards={a: {kind: preservation}, f: {kind: product, formula: a * a}}"], "rewards.a, rewards.f"),
    ],
)
def test_rewards_that_an_untouched_source_wins_need_another_one(overrides: list[str], names: str) -> None:
    with pytest.raises(UserError) as caught:
        load_config("toy", ["judge=null", *overrides])
    assert str(caught.value) == f"preset toy: {names}{UNTOUCHED}"
    assert load_config("toy", overrides).judge is not None
    assert load_config("toy", ["judge=null", *overrides, "rewards.text={kind: ocr}"]).judge is None


def test_stored_edits_may_be_measured_by_what_they_keep_alone() -> None:
    stored = ["data={kind: pairs, path: x}", "algorithm={name: sft}", "evaluation={data: y}"]
    assert load_config("toy", ["judge=null", "rewards={kept: {kind: preservation}}", *stored]).judge is None


def test_an_addition_that_is_not_there_is_one_line_with_those_that_are() -> None:
    with pytest.raises(UserError, match=r"^there is no '\+presrve'; shipped additions: \+preserve$"):
        load_config("toy", ["+presrve"])


def test_null_unsets(file: Path) -> None:
    assert load_config(file, ["editor.pixels=null"]).editor.pixels is None


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("algorithm.kll=1", "algorithm.kl"),
        ("optim.gradclip=1", "optim.grad_clip"),
        ("batch_size=1", "judge.batch_size"),
        ("lr=1", "optim.lr"),
        ("optim.learning_rate=1", "optim.lr"),
        ("learning_rate=1", "optim.lr"),
        ("output_dir=x", "out"),
        ("adapter.lora_rank=4", "adapter.rank"),
        ("rollout.groupsize=3", "rollout.group_size"),
        ("sead=3", "seed"),
        ("algoritm.kl=1", "algorithm"),
        ("algorithm.timesteps_image=3", "algorithm.timesteps_per_image"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one_and_its_origin(file: Path, override: str, near: str) -> None:
    said = message(file, override)
    assert f"override {override}: unknown key" in said
    assert f"did you mean {near}?" in said


@pytest.mark.parametrize("key", sorted({*known_keys()}))
def test_one_letter_left_out_is_mended(key: str) -> None:
    assert nearest_key(key[:-1], known_keys()) == key


def test_an_unknown_key_is_compared_with_those_of_the_chosen_algorithm(file: Path) -> None:
    """`beta` is DiffusionNFT's; under AWM it is unknown, so it must not be suggested."""
    assert "algorithm.beta" in known_keys()
    assert "algorithm.beta" in known_keys(algorithm="nft")
    assert "algorithm.beta" not in known_keys(algorithm="awm")
    assert "algorithm.clip_range" in known_keys(algorithm="awm")
    message_of_awm = message(file, "algorithm.name=awm", "algorithm.beta=1")
    assert "override algorithm.beta=1: unknown key algorithm.beta; did you mean " in message_of_awm
    assert "did you mean algorithm.beta?" not in message_of_awm
    assert "did you mean algorithm.kl_old?" in message(file, "algorithm.name=awm", "algorithm.klold=1")
    assert "did you mean algorithm.beta?" in message(file, "algorithm.bta=1")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr=fast", "optim.lr: Input should be a valid number"),
        ("optim.lr=-1", "optim.lr: Input should be greater than 0, not '-1'"),
        ("optim.lr=nan", "optim.lr: Input should be a finite number"),
        ("steps=2.5", "steps: Input should be a valid integer"),
        ("algorithm.std=gruop", "algorithm.std: Input should be 'global' or 'group', not 'gruop'"),
        ("algorithm=3", "algorithm"),
        ("algorithm.kl.x=3", "algorithm.kl"),
        ("optim.betas=[0.9]", "optim.betas"),
        ("editor.path=null", "editor.path: Input should be a valid string"),
        ("rollout.group_size=0", "rollout.group_size: Input should be greater than or equal to 1"),
        ("data.path=null", "data.path must name the folder"),
        ("algorithm.timesteps_per_image=7", "more than the 6 noise levels"),
    ],
)
def test_a_wrong_value_names_key_and_origin(file: Path, override: str, said: str) -> None:
    assert said in message(file, override)
    assert "override" in message(file, override) or "timesteps" in override


def test_of_several_overrides_of_a_key_the_last_one_is_named(file: Path) -> None:
    added = message(file, "+preserve", "rewards.kept.weight=-1")
    assert added.startswith("override rewards.kept.weight=-1: rewards.kept.weight: ")
    assert message(file, "optim.lr=-1", "optim.lr=1", "optim={lr: -2}", "optim.lr=-3").startswith(
        "override optim.lr=-3: "
    )


def test_a_wrong_value_in_the_file_names_the_file(file: Path) -> None:
    file.write_text(MINIMAL + "optim: {lr: fast}\nstep: 3\n")
    said = message(file)
    assert f"{file}: optim.lr: " in said
    assert f"{file}: unknown key step; did you mean steps?" in said


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "3: 4"])
def test_a_file_that_is_no_mapping_is_refused(file: Path, text: str) -> None:
    file.write_text(text)
    assert str(file) in message(file)


def test_a_missing_key_and_a_missing_file_are_named(file: Path, tmp_path: Path) -> None:
    file.write_text("editor: {path: e}\ndata: {path: d}\n")
    assert f"{file}: judge is missing" in message(file)
    assert "shipped presets: " in message(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["steps", "=3", "a..b=1", ".a=1", "", "x=[1", 'x="a'])
def test_what_is_no_override_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="override"):
        parse_override(text)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])),
    st.lists(st.integers()),
)


@given(key=st.from_regex(r"[a-z_]+(\.[a-z_]+)*", fullmatch=True), value=VALUES)
def test_what_yaml_writes_an_override_reads(key: str, value: object) -> None:
    text = yaml.safe_dump(
        value, default_flow_style=True, default_style='"' if isinstance(value, str) else None, width=10**9
    )
    read_key, read = parse_override(f"{key}={text.removesuffix('...' + chr(10)).strip()}")
    assert read_key == key
    if isinstance(value, (bool, int, float)):
        assert type(value)(float(read)) == value if not isinstance(value, bool) else read == str(value).lower()
    else:
        assert read == value


@given(key=st.from_regex(r"[a-z]+", fullmatch=True), value=st.from_regex(r"[A-Za-z0-9_./:=-]+", fullmatch=True))
def test_plain_text_stays_text(key: str, value: str) -> None:
    assert parse_override(f"{key}={value}") == (key, None if value == "null" else value)


def test_every_field_says_what_it_is() -> None:
    def walk(schema: dict[str, object], name: str) -> None:
        for key, field in schema["properties"].items():  # type: ignore[attr-defined]
            assert field.get("description") or "$ref" in field, f"{name}.{key}"

    schema = Config.model_json_schema()
    for name, section in schema["$defs"].items():
        walk(section, name)


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (["judge.endpoints=[http://h/v1]", "judge.model=m"], "either path .* or endpoints"),
        (["judge.path=null"], "either path .* or endpoints"),
        (["judge.path=null", "judge.endpoints=[http://h/v1]"], "judge.model must say"),
        (["judge.scale=[5, 5]"], "judge.scale must rise"),
        (["rewards={ocr: {kind: ocr, path: x}}"], "path must name"),
        (["rewards={kept: {kind: preservation, judge: {path: x}}}"], "belongs to kind"),
        (["rewards={f: {kind: function}}"], "path must name"),
        (["rewards={f: {kind: magic}}"], "rewards.f.kind: Input should be 'judge', .*, not 'magic'"),
        (["rewards={f: {weight: 1}}"], "rewards.f.kind is missing"),
        (["rewards={f: {kind: ocr, wieght: 1}}"], r"unknown key rewards.f.wieght; did you mean rewards.f.weight\?"),
        (
            ["rewards={f: {kind: judge, judge: {paht: x}}}"],
            r"f.judge.paht; did you mean rewards.f.judge.path\?",
        ),
        (["rewards={f: {kind: ocr, weight: -1}}"], "rewards.f.weight: Input should be greater than or equal to 0"),
        (["rewards={f: {kind: ocr, weight: 0}}"], "kind .ocr.: weight=0 counts for no task; leave it out"),
        (["rewards={f: {kind: ocr, lora: x}}"], "belongs to kind"),
        (["judge.method=ranking", "judge.order=paper"], "judge.template: method ranking .* leave template out"),
        (["judge.method=ranking", "judge.template=full"], "judge.order: method ranking"),
        (["judge=null"], "judge is missing, and there are no rewards"),
        (["judge.paht=x"], r"unknown key judge.paht; did you mean judge.path\?"),
        (["rewards={judge: {kind: ocr}}"], "rewards.judge: the name belongs to the judge"),
    ],
)
def test_judges_that_cannot_be_are_refused(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_config("toy", overrides)


def test_a_lora_to_start_from_needs_lora_training() -> None:
    with pytest.raises(UserError, match=r"adapter\.init is a LoRA.*--merge"):
        load_config("toy", ["adapter.init=lora", "adapter.mode=full"])


def test_a_scale_of_the_lora_to_start_from_needs_one_and_is_a_number() -> None:
    with pytest.raises(UserError, match=r"adapter\.init_scale=2 needs a LoRA: set adapter\.init"):
        load_config("toy", ["adapter.init_scale=2"])
    with pytest.raises(UserError, match=r"adapter\.init_scale"):
        load_config("toy", ["adapter.init=lora", "adapter.init_scale=.nan"])
    assert load_config("toy", ["adapter.init=lora", "adapter.init_scale=2"]).adapter.init_scale == 2


def test_toy_names_the_shipped_models_with_their_own_area_and_words(file: Path) -> None:
    short = load_config(file, ["editor.path=toy", "judge.path=toy"])
    long = load_config(file, ["editor.path=toy:qwen-image-edit", "judge.path=toy:judge"])
    preset = load_config("toy")
    assert short == long
    assert (short.editor.path, short.editor.pixels) == (preset.editor.path, preset.editor.pixels) == (
        "toy:qwen-image-edit",
        64 * 64,
    )  # fmt: skip
    assert short.judge == preset.judge
    own = load_config(
        file, ["editor.path=toy:flux-kontext", "editor.pixels=1024", "judge.path=toy", "judge.template=full"]
    )
    assert own.judge is not None
    assert (own.editor.pixels, own.judge.template, own.judge.order) == (1024, "full", "prefix")
    ranking = load_config(file, ["judge.path=toy", "judge.method=ranking"])
    assert ranking.judge is not None and ranking.judge.template == "full"  # its words are its own
    assert load_config(file).editor.pixels == 512 * 512


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (
            ["name=dgpo", "kl_share=0.5"],
            "algorithm.kl_share=0.5 makes no sense with algorithm 'dgpo': its loss needs the",
        ),
        (
            ["name=dpo", "informative=0.5"],
            "algorithm.informative=0.5 makes no sense with algorithm 'dpo': it compares a whole",
        ),
        (["name=rft", "rescaled=true"], "algorithm.rescaled=True makes no sense with algorithm 'rft': its loss has no"),
    ],
)
def test_a_setting_that_an_algorithm_cannot_use_is_refused_with_the_reason(overrides: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=re.escape(reason)):
        load_config("toy", [f"algorithm.{override}" for override in overrides])


@pytest.mark.parametrize(("name", "least"), [("crd", 12), ("dgpo", 12), ("dpo", 2)])
def test_a_call_must_hold_the_edits_that_are_compared(name: str, least: int) -> None:
    settings = [f"algorithm.name={name}", "data.path=x"]
    load_config("flux_kontext", [*settings, f"optim.micro_batch={least}"])
    message = (
        f"optim.micro_batch={least - 1} is less than the {least} edits of a group that algorithm '{name}' compares"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        load_config("flux_kontext", [*settings, f"optim.micro_batch={least - 1}"])
    load_config("flux_kontext", ["algorithm.name=rft", *settings[1:], "optim.micro_batch=1"])
