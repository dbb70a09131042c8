import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from editr1.config.data import DataConfig
from editr1.config.loading import load_config
from editr1.data.samples import EditSample, JsonlDataset
from editr1.devices import pick_device, pick_dtype
from editr1.editors.open import inference_guidance, open_config_editor, open_named_editor
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.mllm import MLLMJudge
from editr1.judges.open import open_config_judge, open_judge, parse_judge
from editr1.toy.assets import locate
from editr1.toy.world import ToyDataset
from editr1.training.checkpoint import resolve
from editr1.training.datasets import open_dataset
from editr1.training.distributed import World
from editr1.training.open import open_trainer


def test_a_config_names_its_dataset(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "data.jsonl").write_text('{"source": "a.png", "instruction": "go"}')
    assert isinstance(open_dataset(DataConfig(path=tmp_path)), JsonlDataset)
    toy = open_dataset(DataConfig(kind="toy", split="heldout", size=7, seed=3))
    assert isinstance(toy, ToyDataset)
    assert (toy.split, len(toy), toy.seed) == ("heldout", 7, 3)


def test_one_gpu_by_its_number_is_refused_for_several_processes() -> None:
    config = load_config("toy", ["editor.device=cuda:1"])
    with pytest.raises(UserError, match=r"cuda:1.*2 processes; use auto"):
        open_trainer(config, world=World(0, 2))


def test_only_shipped_names_are_looked_up() -> None:
    assert locate("black-forest-labs/FLUX.1-Kontext-dev") == "black-forest-labs/FLUX.1-Kontext-dev"
    with pytest.raises(UserError, match="nothing"):
        locate("toy:nothing")


def test_toy_is_the_same_model_in_every_command() -> None:
    assert locate("toy") == locate("toy:qwen-image-edit") and locate("toy", toy="judge") == locate("toy:judge")
    assert parse_judge("toy") == parse_judge("toy:judge") == load_config("toy").judge
    assert parse_judge("toy?method=ranking") == parse_judge("toy:judge?method=ranking")
    editors = [open_named_editor(name) for name in ("toy", "toy:qwen-image-edit")]
    assert [editor.pixels for editor in editors] == [64 * 64] * 2
    assert editors[0].pipe.config._name_or_path == editors[1].pipe.config._name_or_path


def test_a_runs_settings_name_its_editor_as_it_fits_on_the_machine(tiny_editor_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    editor = {"path": str(tiny_editor_path), "dtype": "float32", "pixels": 4096}
    unused = {"judge": {"path": "x"}, "data": {"path": "x"}}
    run.write_text(yaml.safe_dump({"editor": editor, "memory": {"vae_tiling": True}, **unused}))
    plain, named = open_named_editor(str(tiny_editor_path), pixels=4096), open_named_editor(str(run))
    assert named.pipe.vae.use_tiling and not plain.pipe.vae.use_tiling
    sample = EditSample("a", Image.new("RGB", (32, 32), "red"), "Make it blue.")
    edits = [editor.rollout(sample, 1, steps=2, seed=0).images[0] for editor in (plain, named)]
    assert edits[0].tobytes() == edits[1].tobytes() and edits[0].size == (64, 64)
    smaller = open_named_editor(str(run), pixels=1024).rollout(sample, 1, steps=2, seed=0).images[0]
    assert smaller.size == (32, 32)
    with pytest.raises(UserError, match=r"nowhere\.yaml"):
        open_named_editor("nowhere.yaml")


@pytest.mark.parametrize(
    ("pipeline", "scale"),
    [
        ("QwenImageEditPipeline", 4.0),
        ("QwenImageEditPlusPipeline", 4.0),
        ("FluxKontextPipeline", 3.5),
        ("Flux2KleinPipeline", 4.0),
        ("Flux2KleinKVPipeline", None),
        ("LongCatImageEditPipeline", 4.5),
        ("FluxKontextInpaintPipeline", 3.5),  # without a record
    ],
)
def test_guidance_outside_of_training_is_the_pipelines_own_and_not_that_of_training(
    tmp_path: Path, pipeline: str, scale: float | None
) -> None:
    index = {"_class_name": pipeline, "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert inference_guidance(str(tmp_path)) == scale
    run = {"editor": {"path": str(tmp_path), "guidance": 1.5}, "judge": {"path": "x"}, "data": {"path": "x"}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert inference_guidance(str(tmp_path / "run.yaml")) == scale


@pytest.mark.parametrize(("name", "scale"), [("toy", 1.0), ("toy:flux-kontext", 2.5)])
def test_a_toy_is_edited_with_the_guidance_that_its_preset_trains_with(name: str, scale: float) -> None:
    preset = load_config("toy_flux_kontext" if "flux" in name else "toy")
    assert inference_guidance(name) == scale == open_config_editor(preset).guidance == open_named_editor(name).guidance


def test_devices_that_are_not_there_are_refused() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match=r"editor\.device='gpu' is no device"):
        pick_device("gpu")


def test_the_number_format_is_bfloat16_where_it_is_fast_and_a_run_keeps_what_auto_means(tiny_editor_path: Path) -> None:
    assert pick_dtype("auto", torch.device("cpu")) == pick_dtype("float32", torch.device("cuda")) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    config = load_config("flux_kontext", [f"editor.path={tiny_editor_path}", "editor.device=cpu", "data.path=x"])
    assert config.editor.dtype == "auto" and resolve(config).editor.dtype == "float32"
    editor = open_config_editor(config)
    assert next(editor.denoiser.parameters()).dtype == torch.float32


@pytest.mark.parametrize(("mode", "dtype"), [("lora", "bfloat16"), ("full", "float32")])
def test_weights_that_are_trained_themselves_are_not_bfloat16_by_default(
    monkeypatch: pytest.MonkeyPatch, mode: str, dtype: str
) -> None:
    monkeypatch.setattr("editr1.training.checkpoint.pick_device", lambda name: torch.device("cuda"))
    settings = ["editor.path=x", "data.path=x", f"adapter.mode={mode}"]
    assert resolve(load_config("flux_kontext", settings)).editor.dtype == dtype
    explicit = load_config("flux_kontext", [*settings, "editor.dtype=bfloat16"])
    assert resolve(explicit).editor.dtype == "bfloat16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match="there is no GPU here"):
        pick_device("cuda:1")


def test_a_judge_is_named_by_a_word_a_folder_a_file_or_servers(tmp_path: Path) -> None:
    toy = parse_judge("toy?method=yes_no")
    assert (toy.path, toy.method, toy.template, toy.order) == ("toy:judge", "yes_no", "brief", "prefix")
    assert parse_judge("models/judge?scale=[1,9]").scale == (1, 9)
    assert parse_judge("toy?formula=execution * (0.6 + 0.4 * consistency)").asked == ("execution", "consistency")
    served = parse_judge("openai:http://a:1/v1,http://b:2/v1?model=qwen&in_flight=3")
    assert (served.endpoints, served.model) == (("http://a:1/v1", "http://b:2/v1"), "qwen")
    assert (served.path, served.in_flight) == (None, 3)
    for text in ("path: here\nsamples: 4\n", "judge: {path: here, samples: 4}\nsteps: 3\n"):
        (tmp_path / "judge.yaml").write_text(text)
        assert (parse_judge(str(tmp_path / "judge.yaml")).path, parse_judge("x").samples) == ("here", 1)
        assert parse_judge(str(tmp_path / "judge.yaml")).samples == 4


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("openai:http://a/v1", "judge.model must say"),
        ("toy?methods=all", "methods: Extra"),
        ("nowhere.yaml", "cannot be read"),
        ("toy?samples=0", "samples: Input should be greater"),
    ],
)
def test_a_judge_that_is_named_wrongly_is_refused(name: str, problem: str) -> None:
    with pytest.raises(UserError, match=f"--judge .*{problem}"):
        parse_judge(name)


@pytest.mark.parametrize("text", ["", "3", "judge: null\neditor: {path: e}", "editor: {path: e}\nrewards: {}"])
def test_a_file_without_a_judge_is_refused_as_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError, match=r"run\.yaml: holds no settings of a judge"):
        parse_judge(str(tmp_path / "run.yaml"))


def test_judges_of_one_folder_share_the_model_and_unknown_criteria_are_refused() -> None:
    one, two = (open_judge(parse_judge(f"toy?method={method}")) for method in ("score_logit", "yes_no"))
    assert isinstance(one, MLLMJudge) and isinstance(two, MLLMJudge) and one.model is two.model
    with pytest.raises(UserError, match="has no 'beauty'; it has overall, instruction"):
        open_judge(parse_judge("toy").model_copy(update={"criteria": {"beauty": 1.0}}))


def test_a_config_with_rewards_makes_a_mix_of_named_parts() -> None:
    config = load_config("toy", ["rewards={kept: {kind: preservation, weight: 0.5}}"])
    item = open_dataset(config.data)[0]
    (score,) = open_config_judge(config).score([JudgeRequest(item, item.source)])
    judge, kept = score.parts["judge"].value, score.parts["kept"].value
    assert judge is not None and kept == 1.0
    assert score.value == pytest.approx((judge + 0.5 * kept) / 1.5)
