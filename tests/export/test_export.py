"""Exports of a run, loaded as a user would; and one edit from the command line."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from diffusers import DiffusionPipeline, QwenImageEditPlusPipeline
from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus
from peft import PeftModel
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

from editr1 import __version__
from editr1.algorithms.awm import AWM
from editr1.cli import export as export_commands
from editr1.config.loading import dump_config
from editr1.config.settings import AdapterConfig, Config
from editr1.editors.editor import Editor
from editr1.editors.lora.files import injected, load_lora_into, read_lora, refuse_differences
from editr1.editors.open import open_editor
from editr1.editors.policies import LoraPolicies
from editr1.errors import UserError
from editr1.export.export import export_run, merge_lora
from editr1.training import checkpoint
from editr1.training.checkpoint import trained_weights
from tests.editors.tiny_denoisers import add_lora, build_flux_1, output
from tests.editors.tiny_other import build_dreamlite
from tests.tiny import PIXELS, shake, tiny_sample

LAYOUTS = ["diffusers", "peft", "comfyui"]


def write_run(folder: Path, base: Path, mode: str, write: Callable[[Path, int], None]) -> Path:
    """What a training leaves: config, metrics and two checkpoints, whose weights `write` makes."""
    config = Config.model_validate(
        {
            "editor": {"path": str(base), "dtype": "float32", "pixels": PIXELS},
            "judge": {"path": "toy:judge"},
            "data": {"kind": "toy"},
            "adapter": {"mode": mode, "rank": 3, "alpha": 5},
            "out": str(folder),
        }
    )
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(config))
    counts = {"unscored": 0, "groups_kept": 1, "dropped": {}, "reward_by_task": {}, "seconds": {}}
    rows = [{"step": step, "reward_mean": None if step == 2 else 0.25 * step, **counts} for step in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for step in (2, 3):
        write_at = functools.partial(lambda part, step: write(part, step), step=step)
        state = {"seconds": step, "start": {}, "config": config.model_dump(mode="json")}
        checkpoint.save(folder / "checkpoints", step, state, write_at, keep=3)
    return folder


def write_weights(editor: Editor, folder: Path, step: int) -> None:
    """policy/ and ema/, other random ones each."""
    for number, name in enumerate(("policy", "ema")):
        shake(editor, 0.1, seed=10 * step + number)
        editor.policies.save(folder / name, "default")


@pytest.fixture(scope="module")
def runs(tiny_editor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a run "lora" and a run "full"."""
    folder = tmp_path_factory.mktemp("runs")
    for mode in ("lora", "full"):
        editor = open_editor(tiny_editor_path, pixels=PIXELS)
        editor.add_policies(AdapterConfig(mode=mode, rank=3, alpha=5))
        write_run(folder / mode, tiny_editor_path, mode, functools.partial(write_weights, editor))
    return folder


@pytest.fixture(scope="module")
def flux_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny FLUX.1 Kontext."""
    folder = tmp_path_factory.mktemp("flux")
    build_flux_1().save_pretrained(folder / "base")
    pipe = build_flux_1()
    add_lora(pipe.transformer, ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "ff.net.2"])

    def write(part: Path, step: int) -> None:
        pipe.transformer.save_lora_adapter(part / "ema")

    return write_run(folder / "run", folder / "base", "lora", write)


@pytest.fixture(scope="module")
def answer(tiny_editor_path: Path) -> Callable[[Any], Tensor]:
    """What a pipeline's denoiser answers to a fixed question."""
    editor = open_editor(tiny_editor_path, pixels=PIXELS)
    made = editor.rollout(tiny_sample(), 2, steps=2, seed=0)

    @torch.no_grad()
    def ask(pipe: Any) -> Tensor:
        fresh = Editor(pipe, editor.family, pixels=PIXELS)
        return fresh.velocity(made.conditioning, made.latents, torch.tensor([0.3, 0.8]))

    return ask


def trained(base: Path, run: Path, *, ema: bool = True, step: int = 3) -> Any:
    """The pipeline as the trainer has it."""
    editor = open_editor(base, pixels=PIXELS)
    config = yaml.safe_load((run / "config.yaml").read_text())["adapter"]
    editor.add_policies(AdapterConfig(mode=config["mode"], rank=3, alpha=5))
    editor.policies.load(run / "checkpoints" / f"step_{step:06d}" / ("ema" if ema else "policy"), "default")
    return editor.pipe


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_format_loads_the_way_its_users_do(
    runs: Path, tiny_editor_path: Path, answer: Any, tmp_path: Path, layout: str
) -> None:
    export_run(runs / "lora", tmp_path / "out", layout=layout)
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    base = answer(pipe)
    if layout == "peft":
        pipe.transformer = PeftModel.from_pretrained(pipe.transformer, tmp_path / "out").get_base_model()
    else:
        pipe.load_lora_weights(tmp_path / "out")
    want = answer(trained(tiny_editor_path, runs / "lora"))
    torch.testing.assert_close(answer(pipe), want, rtol=1e-4, atol=1e-5)
    assert (want - base).abs().max() > 1e-2


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flux_exports_compute_the_same(flux_run: Path, tmp_path: Path, layout: str) -> None:
    export_run(flux_run, tmp_path / "out", layout=layout)
    want, base = build_flux_1(), build_flux_1()
    load_lora_into(want, trained_weights(flux_run))
    load_lora_into(base, tmp_path / "out")
    torch.testing.assert_close(output(base.transformer), output(want.transformer), rtol=1e-4, atol=1e-5)
    assert (output(build_flux_1().transformer) - output(want.transformer)).abs().max() > 1e-2
    call = "width=width, height=height, _auto_resize=False, max_area=width * height, guidance_scale=3.5, "
    assert call in (tmp_path / "out/README.md").read_text()
    if layout == "peft":
        model = PeftModel.from_pretrained(build_flux_1().transformer, tmp_path / "out").get_base_model()
        torch.testing.assert_close(output(model), output(want.transformer), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def unet_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a pipeline whose denoiser is called unet, as the trainer writes it."""
    folder = tmp_path_factory.mktemp("unet")
    pipe: Any = build_dreamlite()
    pipe.save_pretrained(folder / "base")
    policies = LoraPolicies(pipe.unet, "unet", AdapterConfig(rank=3, alpha=5), ["to_q", "to_v"], 0)
    for weight in policies.weights["default"].values():
        weight.data = 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(weight.numel()))
    return write_run(folder / "run", folder / "base", "lora", lambda part, _: policies.save(part / "ema", "default"))


@pytest.mark.parametrize("form", ["diffusers", "peft", "merged"])
def test_a_denoiser_of_another_name_is_exported_and_loaded_under_its_own(
    unet_run: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = read_lora(trained_weights(unet_run))
    assert any(layer.up.any() for layer in lora.values())
    base = DiffusionPipeline.from_pretrained(unet_run.parent / "base").unet
    want = {name: base.get_submodule(name).weight + layer.delta() for name, layer in lora.items()}
    export_run(unet_run, tmp_path / "out", merge=form == "merged", layout="diffusers" if form == "merged" else form)
    card = (tmp_path / "out/README.md").read_text()
    if form == "merged":
        merged = DiffusionPipeline.from_pretrained(tmp_path / "out").unet.state_dict()
        for name, weight in want.items():
            torch.testing.assert_close(merged[f"{name}.weight"], weight)
        return
    pipe: Any = build_dreamlite()
    load_lora_into(pipe, tmp_path / "out", component="unet")
    refuse_differences(lora, injected(pipe.unet, "lora"), "as editr1 loads it")
    (line,) = [line for line in card.splitlines() if line.startswith("pipe.unet")]
    pipe = build_dreamlite()
    monkeypatch.chdir(tmp_path)
    exec(line, {"pipe": pipe, "PeftModel": PeftModel, "dtype": torch.float32})
    adapter = "default" if form == "peft" else "default_0"
    refuse_differences(lora, injected(pipe.unet, adapter), "as the card loads it")


@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_merged_pipeline_computes_as_the_trained_one(
    runs: Path, tiny_editor_path: Path, answer: Any, tmp_path: Path, mode: str
) -> None:
    export_run(runs / mode, tmp_path / "out", merge=True)
    pipe = DiffusionPipeline.from_pretrained(tmp_path / "out")
    want = answer(trained(tiny_editor_path, runs / mode))
    torch.testing.assert_close(answer(pipe), want, rtol=1e-3, atol=1e-4)
    if mode == "full":
        assert torch.equal(answer(pipe), want)


def test_merging_into_bfloat16_changes_the_layers_of_the_lora_alone() -> None:
    target = "transformer_blocks.1.attn.to_q"
    pipe = build_flux_1()
    add_lora(pipe.transformer, [target])
    lora = injected(pipe.transformer, "default")
    half = build_flux_1().transformer.to(torch.bfloat16)
    before = {name: weight.clone() for name, weight in half.state_dict().items()}
    merge_lora(half, lora)
    for name, weight in half.state_dict().items():
        if name == f"{target}.weight":
            want = before[name].float() + lora[target].delta()
            torch.testing.assert_close(weight.float(), want, rtol=0.01, atol=0.01)
            assert not torch.equal(weight, before[name])
        else:
            assert torch.equal(weight, before[name])


def test_a_lora_of_one_block_stays_in_that_block(tmp_path: Path) -> None:
    build_flux_1().save_pretrained(tmp_path / "base")
    pipe = build_flux_1()
    add_lora(pipe.transformer, ["transformer_blocks.1.attn.to_q", "single_transformer_blocks.0.proj_out"])
    want = output(pipe.transformer)
    run = write_run(
        tmp_path / "run", tmp_path / "base", "lora", lambda part, _: pipe.transformer.save_lora_adapter(part / "ema")
    )
    for layout in LAYOUTS:
        export_run(run, tmp_path / layout, layout=layout)
        fresh = build_flux_1()
        load_lora_into(fresh, tmp_path / layout)
        torch.testing.assert_close(output(fresh.transformer), want, rtol=1e-4, atol=1e-5)
    model = PeftModel.from_pretrained(build_flux_1().transformer, tmp_path / "peft").get_base_model()
    torch.testing.assert_close(output(model), want, rtol=1e-4, atol=1e-5)


def test_merging_is_exact_for_flux_and_refuses_another_model(flux_run: Path, runs: Path) -> None:
    want, pipe = build_flux_1(), build_flux_1()
    load_lora_into(want, trained_weights(flux_run))
    merge_lora(pipe.transformer, read_lora(trained_weights(flux_run)))
    assert pipe.transformer.state_dict().keys() == build_flux_1().transformer.state_dict().keys()
    torch.testing.assert_close(output(pipe.transformer), output(want.transformer), rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="for another model than FluxTransformer2DModel: left over"):
        merge_lora(build_flux_1().transformer, read_lora(trained_weights(runs / "lora")))


@pytest.mark.parametrize(("ema", "step"), [(True, None), (False, None), (False, 2)])
def test_average_and_step_are_the_ones_that_were_asked_for(
    runs: Path, tiny_editor_path: Path, answer: Any, tmp_path: Path, ema: bool, step: int | None
) -> None:
    export_run(runs / "lora", tmp_path / "out", ema=ema, step=step)
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    pipe.load_lora_weights(tmp_path / "out")
    assert torch.equal(answer(pipe), answer(trained(tiny_editor_path, runs / "lora", ema=ema, step=step or 3)))
    assert (
        f"{'average of the ' if ema else 'the '}weights after step {step or 3}"
        in (tmp_path / "out/README.md").read_text()
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_header_says_where_the_weights_come_from(
    runs: Path, tiny_editor_path: Path, tmp_path: Path, layout: str
) -> None:
    export_run(runs / "lora", tmp_path / "out", layout=layout)
    (file,) = (tmp_path / "out").glob("*.safetensors")
    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    config = (runs / "lora/config.yaml").read_bytes()
    facts = {
        "base_model": str(tiny_editor_path),
        "step": "3",
        "config_sha256": hashlib.sha256(config).hexdigest(),
        "editr1_version": __version__,
    }
    assert facts.items() <= header.items()
    if layout == "diffusers":
        settings = json.loads(header["lora_adapter_metadata"])
        assert (settings["transformer.r"], settings["transformer.lora_alpha"]) == (3, 5)
        assert "attn.to_q" in settings["transformer.target_modules"]


@pytest.mark.parametrize("form", [*LAYOUTS, "merged"])
def test_the_code_of_the_card_works(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.chdir(tmp_path)
    for area in ("VAE_IMAGE_SIZE", "CONDITION_IMAGE_SIZE"):
        monkeypatch.setattr(pipeline_qwenimage_edit_plus, area, PIXELS)
    Image.new("RGB", (64, 64), "red").save("source.png")
    export_run(runs / "lora", Path("out"), merge=form == "merged", layout="diffusers" if form == "merged" else form)
    card = Path("out/README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", card, re.S)
    exec(code.replace("num_inference_steps=28", "num_inference_steps=2"), {})
    with Image.open("edit.png") as image:
        assert image.size == (64, 64)


def test_the_card_says_what_the_run_recorded_and_no_later_step(
    runs: Path, tiny_editor_path: Path, tmp_path: Path
) -> None:
    export_run(runs / "lora", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["library_name"]) == (str(tiny_editor_path), "diffusers")
    assert {"lora", "DiffusionNFT"} <= set(front["tags"])
    assert "0.250 in step 1, 0.750 in step 3" in card and "rank: 3" in card
    with Image.open(tmp_path / "out/reward.png") as picture:
        assert picture.width > 500


def test_the_card_names_the_algorithm_of_the_run(runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "lora", tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["algorithm"] = AWM().model_dump(mode="json")
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    export_run(run, tmp_path / "out")
    tags = yaml.safe_load((tmp_path / "out/README.md").read_text().split("---")[1])["tags"]
    assert "AWM" in tags and "DiffusionNFT" not in tags


def test_without_matplotlib_the_card_has_no_picture_and_a_line_says_what_to_install(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    export_run(runs / "lora", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert "0.250 in step 1, 0.750 in step 3" in card and "reward.png" not in card
    assert not (tmp_path / "out/reward.png").exists()
    assert "pip install 'editr1[figures]'" in caplog.text and caplog.text.count("\n") == 1


def test_without_metrics_there_is_no_curve(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "lora", tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").unlink()
    export_run(tmp_path / "run", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "pytorch_lora_weights.safetensors",
    ]
    assert "Reward" not in (tmp_path / "out/README.md").read_text()


def other_base(run: Path, path: str) -> Path:
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["editor"]["path"] = path
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def cut_weights(run: Path) -> Path:
    for file in (run / "checkpoints").rglob("ema/*.safetensors"):
        file.write_bytes(bytes(file.stat().st_size))
    return run


def without_checkpoints(run: Path) -> Path:
    shutil.rmtree(run / "checkpoints")
    return run


@pytest.mark.parametrize(
    ("change", "settings", "said"),
    [
        (lambda run: run / "nothing", {}, "holds no run"),
        (without_checkpoints, {}, "has no whole checkpoint"),
        (lambda run: run, {"step": 7}, "no checkpoint of step 7; it has those of 2, 3"),
        (lambda run: run, {"layout": "onnx"}, "format must be one of diffusers, peft, comfyui"),
        (lambda run: run, {"layout": "peft", "merge": True}, "leave out --merge or --format"),
        (lambda run: other_base(run, "/nowhere"), {}, "is no diffusers pipeline with a denoiser"),
        (lambda run: other_base(run, "FLUX"), {}, "for another model than FluxTransformer2DModel"),
        (lambda run: other_base(run, "FLUX"), {"merge": True}, "cannot load the pipeline FLUX"),
        (cut_weights, {}, "its content is not what was written"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(
    runs: Path, flux_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, settings: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FLUX").symlink_to(flux_run.parent / "base")
    run = change(Path(shutil.copytree(runs / "lora", tmp_path / "run")))
    with pytest.raises(UserError) as error:
        export_run(run, tmp_path / "out", **settings)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"FLUX", "run"}


def test_a_run_of_the_whole_denoiser_has_no_lora(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add --merge"):
        export_run(runs / "full", tmp_path / "out")


def test_a_folder_that_holds_something_is_refused_and_kept(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("mine")
    with pytest.raises(UserError, match="exists and is not an empty folder"):
        export_run(runs / "lora", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
    (tmp_path / "out/mine").unlink()
    assert export_run(runs / "lora", tmp_path / "out") == tmp_path / "out"


def test_a_file_that_reads_back_otherwise_is_refused(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(tensors: dict[str, Tensor], file: Path, metadata: Any) -> None:
        name = next(name for name in tensors if "lora_B" in name)
        save_file({**tensors, name: 2 * tensors[name]}, file, metadata=metadata)

    monkeypatch.setattr("editr1.export.export.save_tensors", lossy)
    for layout in LAYOUTS:
        with pytest.raises(UserError, match=r"differs from the original: with other values 1 \(transformer_blocks"):
            export_run(runs / "lora", tmp_path / "out", layout=layout)
    assert not list(tmp_path.iterdir())


def invoke(*arguments: object) -> tuple[int, str, str]:
    """As `cli.py` registers the commands."""
    app = typer.Typer(pretty_exceptions_enable=False)
    for command in (export_commands.export, export_commands.edit):

        @functools.wraps(command)
        def reported(*args: Any, command: Any = command, **kwargs: Any) -> None:
            try:
                command(*args, **kwargs)
            except UserError as error:
                typer.echo(f"editr1: {error}", err=True)
                raise typer.Exit(2) from error

        app.command()(reported)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stdout, result.stderr


def test_the_export_command_takes_its_options(runs: Path, tmp_path: Path) -> None:
    command = ("export", runs / "lora", "--to", tmp_path / "out", "--format", "peft", "--no-ema", "--step", 2)
    assert invoke(*command) == (0, f"{tmp_path / 'out'}\n", "")
    assert (tmp_path / "out/adapter_config.json").exists()
    code, _, said = invoke(*command)
    assert code == 2 and said.startswith("editr1: ") and said.count("\n") == 1


def test_edit_uses_the_lora_in_every_form(
    runs: Path, tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_sample().source.save("a.png")
    options = ("--editor", tiny_editor_path, "--steps", 2, "--seed", 3, "--pixels", PIXELS)
    assert invoke("edit", "a.png", "remove the red ball", *options)[:2] == (0, "a.edited.png\n")
    pictures = {"none": Path("a.edited.png").read_bytes()}
    export_run(runs / "lora", tmp_path / "out", layout="comfyui")
    forms = {"run": runs / "lora", "checkpoint": runs / "lora/checkpoints/step_000003", "comfyui": tmp_path / "out"}
    for name, lora in forms.items():
        code, _, said = invoke("edit", "a.png", "remove the red ball", *options, "--lora", lora, "--out", "b.png")
        assert code == 0, said
        pictures[name] = Path("b.png").read_bytes()
    assert pictures["run"] == pictures["checkpoint"] == pictures["comfyui"] != pictures["none"]
    command = ("edit", "a.png", "remove the red ball", *options, "--lora", runs / "lora", "--out", "scaled.png")
    scaled = {}
    for scale in (0, 1, 2):
        assert invoke(*command, "--lora-scale", scale)[0] == 0
        scaled[scale] = Path("scaled.png").read_bytes()
    assert (scaled[0], scaled[1]) == (pictures["none"], pictures["run"]) and scaled[2] not in pictures.values()
    family = open_editor(tiny_editor_path).family
    want = Editor(trained(tiny_editor_path, runs / "lora"), family, pixels=PIXELS, guidance=4.0)
    image = want.rollout(tiny_sample(), 1, steps=2, seed=3, scheduler="euler").images[0]
    with Image.open("b.png") as got:
        assert got.tobytes() == image.tobytes()


def test_edit_works_with_the_shipped_editor(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(tmp_path / "a.png")
    command = ("edit", tmp_path / "a.png", "add a red star", "--editor", "toy:qwen-image-edit", "--steps", 2)
    assert invoke(*command, "--out", tmp_path / "b.jpg")[0] == 0
    with Image.open(tmp_path / "b.jpg") as image:
        assert (image.size, image.format) == ((64, 64), "JPEG")


@pytest.mark.parametrize(
    ("image", "options", "said"),
    [
        ("none.png", (), "cannot read the picture none.png"),
        ("a.png", ("--out", "./a.png"), "is the source itself"),
        ("a.png", ("--out", "b.xyz"), "no picture format is called '.xyz'"),
        ("a.png", ("--lora", "nothing"), "nothing: no LoRA there"),
        ("a.png", ("--lora-scale", 2), "--lora-scale 2 needs a LoRA: add --lora"),
        ("a.png", ("--lora", "a.png", "--lora-scale", "nan"), "--lora-scale nan: give a finite number"),
    ],
)
def test_wrong_edits_are_one_line(
    tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: str, options: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "white").save("a.png")
    code, out, err = invoke("edit", image, "remove it", "--editor", tiny_editor_path, "--pixels", PIXELS, *options)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
