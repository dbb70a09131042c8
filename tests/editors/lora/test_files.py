"""LoRA files of every layout, loaded into a fresh denoiser: it must compute what the one computed that made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from diffusers import QwenImageEditPlusPipeline
from diffusers.loaders import FluxLoraLoaderMixin
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor

from editr1.config.settings import AdapterConfig
from editr1.editors.editor import Editor
from editr1.editors.lora.comfyui import Layer, Lora, from_original, to_original
from editr1.editors.lora.files import injected, linear_shapes, load_lora_into, matrices, read_lora, refuse_differences
from editr1.errors import UserError
from tests.editors.tiny_denoisers import add_lora, build_flux_1, build_flux_2, output
from tests.tiny import PIXELS, shake, tiny_sample

ATTENTION = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
FLUX_1 = [*ATTENTION, "ff.net.0.proj", "ff.net.2", "norm1.linear", "proj_mlp"]
FLUX_2 = [*ATTENTION, "ff.linear_in", "ff.linear_out", "to_qkv_mlp_proj"]


def random_lora(shapes: dict[str, tuple[int, int]], rank: int = 4) -> Lora:
    generator = torch.Generator().manual_seed(0)
    return {
        name: Layer(
            torch.randn(rank, shape[1], generator=generator), torch.randn(shape[0], rank, generator=generator), 0.5
        )
        for name, shape in shapes.items()
    }


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def save_comfyui(pipe: Any, path: Path) -> None:
    shapes = linear_shapes(pipe.transformer)
    lora = injected(pipe.transformer, "default")
    save_file(to_original(lora, type(pipe.transformer).__name__, lambda name: shapes[name][0]), path)


@pytest.fixture
def trained(tiny_editor: Editor) -> tuple[Editor, Callable[[Any], Tensor]]:
    """An editor with a random LoRA, and what a pipeline's denoiser answers to a fixed question."""
    made = tiny_editor.rollout(tiny_sample(), 2, steps=2, seed=0)

    @torch.no_grad()
    def answer(pipe: Any) -> Tensor:
        fresh = Editor(pipe, tiny_editor.family, pixels=PIXELS)
        return fresh.velocity(made.conditioning, made.latents, torch.tensor([0.3, 0.8]))

    tiny_editor.add_policies(AdapterConfig(rank=3, alpha=5))
    shake(tiny_editor, 0.2, seed=1)
    return tiny_editor, answer


@pytest.mark.parametrize("layout", ["diffusers", "comfyui"])
def test_qwen_computes_the_same_from_either_layout_by_ours_and_by_the_stock_loader(
    trained: Any, tiny_editor_path: Path, tmp_path: Path, layout: str
) -> None:
    editor, answer = trained
    if layout == "diffusers":
        editor.policies.save(tmp_path, "default")
    else:
        save_comfyui(editor.pipe, tmp_path / "a.safetensors")
        keys = load_file(tmp_path / "a.safetensors").keys()
        names = [f"diffusion_model.transformer_blocks.0.attn.to_q.{end}" for end in ("lora_A.weight", "alpha")]
        assert set(names) <= keys
    want = answer(editor.pipe)
    for load in (load_lora_into, QwenImageEditPlusPipeline.load_lora_weights):
        pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
        base = answer(pipe)
        load(pipe, tmp_path)
        close(answer(pipe), want)
        assert (want - base).abs().max() > 1e-2


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0])
def test_a_scale_multiplies_what_the_lora_adds_as_in_the_stock_library(
    trained: Any, tiny_editor_path: Path, tmp_path: Path, scale: float
) -> None:
    editor, answer = trained
    editor.policies.save(tmp_path, "default")
    pipe, stock = (QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path) for _ in range(2))
    load_lora_into(pipe, tmp_path, scale=scale)
    stock.load_lora_weights(tmp_path, adapter_name="stock")
    stock.set_adapters(["stock"], [scale])
    close(answer(pipe), answer(stock))
    for name, layer in injected(editor.denoiser, "default").items():
        exact = scale * 5 / 3 * layer.up.double() @ layer.down.double()
        close(injected(pipe.transformer, "lora")[name].delta().double(), exact)


@pytest.mark.parametrize("layout", ["released", "editr1"])
def test_a_lora_that_lost_its_alpha_needs_the_scale_that_it_was_trained_with(
    trained: Any, tiny_editor_path: Path, tmp_path: Path, layout: str
) -> None:
    editor, answer = trained
    editor.policies.save(tmp_path, "default")
    if layout == "released":  # its conversion keeps the tensors alone
        (file,) = tmp_path.glob("*.safetensors")
        save_file(load_file(file), file)
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    load_lora_into(pipe, tmp_path, scale=5 / 3 if layout == "released" else 1)
    close(answer(pipe), answer(editor.pipe))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("rslora", [True, False])
def test_a_folder_that_peft_saved_loads_with_equal_outputs(
    trained: Any, tiny_editor_path: Path, tmp_path: Path, rslora: bool, whole: bool
) -> None:
    _, answer = trained
    pipe = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    config = LoraConfig(r=4, lora_alpha=9, target_modules=ATTENTION, use_rslora=rslora, rank_pattern={"0.attn.to_q": 2})
    model = get_peft_model(pipe.transformer, config)
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(tmp_path)
    want = answer(pipe)
    fresh = QwenImageEditPlusPipeline.from_pretrained(tiny_editor_path)
    load_lora_into(fresh, tmp_path if whole else tmp_path / "adapter_model.safetensors")
    close(answer(fresh), want)


def test_a_peft_folder_of_flux_kontext_loads_with_equal_outputs(tmp_path: Path) -> None:
    pipe = build_flux_1()
    model = get_peft_model(pipe.transformer, LoraConfig(r=4, lora_alpha=8, target_modules=FLUX_1))
    for name, weight in model.named_parameters():
        if ".lora_B" in name:
            weight.data = 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
    model.save_pretrained(tmp_path)
    want = output(pipe.transformer)
    fresh = build_flux_1()
    load_lora_into(fresh, tmp_path)
    close(output(fresh.transformer), want)
    again = PeftModel.from_pretrained(build_flux_1().transformer, tmp_path)
    close(output(again.get_base_model()), want)


@pytest.mark.parametrize(
    ("build", "targets", "stock"),
    [
        (build_flux_1, FLUX_1, False),  # the stock loader knows single blocks of width 3072 alone: tested below
        (build_flux_1, [rf"transformer_blocks.{i}.attn.{t}" for i in (0, 1) for t in ATTENTION], True),
        (build_flux_1, ["transformer_blocks.1.attn.to_k", "single_transformer_blocks.0.attn.to_v"], False),
        (build_flux_1, ["transformer_blocks.1.attn.to_k", "single_transformer_blocks.0.proj_out"], True),
        (build_flux_2, FLUX_2, True),
    ],
)
def test_flux_computes_the_same_from_the_original_names(
    build: Any, targets: list[str], stock: bool, tmp_path: Path
) -> None:
    pipe = build()
    add_lora(pipe.transformer, targets, rank_pattern={"attn.to_k": 2}, alpha_pattern={"attn.to_k": 9})
    save_comfyui(pipe, tmp_path / "a.safetensors")
    assert all(".attn.to_" not in key for key in load_file(tmp_path / "a.safetensors"))
    want = output(pipe.transformer)
    for load in [load_lora_into, *([type(pipe).load_lora_weights] if stock else [])]:
        fresh = build()
        base = output(fresh.transformer)
        load(fresh, tmp_path / "a.safetensors")
        close(output(fresh.transformer), want)
        assert (want - base).abs().max() > 1e-2


def test_the_stock_loader_reads_our_flux_names_at_the_real_width() -> None:
    width, mlp = 3072, 12288
    single, double = "single_transformer_blocks.37", "transformer_blocks.18"
    shapes = {f"{single}.attn.to_{part}": (width, width) for part in "qkv"}
    shapes |= {f"{single}.proj_mlp": (mlp, width), f"{single}.proj_out": (width, width + mlp)}
    shapes |= {f"{double}.attn.{target}": (width, width) for target in ATTENTION}
    lora = random_lora(shapes)
    tensors = to_original(lora, "FluxTransformer2DModel", lambda name: shapes[name][0])
    assert tensors["diffusion_model.single_blocks.37.linear1.lora_up.weight"].shape == (3 * width + mlp, 16)
    got = FluxLoraLoaderMixin.lora_state_dict(dict(tensors))
    names = {key.removeprefix("transformer.").rsplit(".lora_", 1)[0] for key in got}
    loaded = {
        name: Layer(got[f"transformer.{name}.lora_A.weight"], got[f"transformer.{name}.lora_B.weight"], 1.0)
        for name in names
    }
    refuse_differences(lora, loaded, "read by diffusers")


def test_fusing_is_undone_exactly_and_zeros_stay_zeros() -> None:
    shapes = linear_shapes(build_flux_1().transformer)
    shapes = {name: shape for name, shape in shapes.items() if "blocks" in name}
    lora = random_lora(shapes)
    lora["transformer_blocks.0.attn.to_q"].up.zero_()
    tensors = to_original(lora, "FluxTransformer2DModel", lambda name: shapes[name][0])
    endings = ("lora_down.weight", "lora_up.weight", "alpha")
    names = {key.removeprefix("diffusion_model.").rsplit(".", 1)[0] for key in tensors if key.endswith("alpha")}
    layers = {
        name: Layer(down, up, float(alpha) / len(down))
        for name in names
        for down, up, alpha in [[tensors[f"diffusion_model.{name}.{ending}"] for ending in endings]]
    }
    back = from_original(layers, "FluxTransformer2DModel")
    assert lora.keys() - back.keys() == {"transformer_blocks.0.attn.to_q"}
    for name, layer in back.items():
        assert torch.equal(layer.down, lora[name].down) and torch.equal(layer.up, lora[name].up)


def test_a_difference_is_listed() -> None:
    wanted = random_lora({f"blocks.{i}": (4, 4) for i in range(8)})
    got = {name: layer for name, layer in wanted.items() if name > "blocks.5"} | random_lora({"other": (4, 4)})
    got["blocks.6"] = Layer(wanted["blocks.6"].down, wanted["blocks.6"].up, 0.6)
    with pytest.raises(UserError) as error:
        refuse_differences(wanted, got, "here")
    first = ", ".join(f"blocks.{i}" for i in range(5))
    assert f"missing 6 ({first}, ...), left over 1 (other), with other values 1 (blocks.6)" in str(error.value)


def write(
    path: Path, lora: Lora, prefix: str = "transformer.", more: Mapping[str, Tensor] = MappingProxyType({})
) -> Path:
    save_file({**matrices(lora, prefix), **more}, path / "a.safetensors")
    return path


def small(shape: tuple[int, int] = (32, 32)) -> Lora:
    return random_lora({"transformer_blocks.0.attn.to_q": shape})


def broken(path: Path) -> Path:
    (path / "a.safetensors").write_bytes(b"broken")
    return path


def broken_header(path: Path) -> Path:
    save_file(matrices(small(), "transformer."), path / "a.safetensors", metadata={"lora_adapter_metadata": "{"})
    return path


def halved(path: Path) -> Path:
    tensors = matrices(small(), "transformer.")
    save_file(dict([tensors.popitem()]), path / "a.safetensors")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path / "nothing", "no LoRA there"),
        (broken, "cannot read the LoRA"),
        (broken_header, "not JSON"),
        (lambda path: write(path, small(), "lora_unet_"), "left over, by name or shape, are 1 (lora_unet_"),
        (lambda path: write(path, {}, more={"x": torch.ones(1)}), "the LoRA's layout is unknown"),
        (lambda path: write(path, {}), "the LoRA's layout is unknown"),
        (lambda path: write(path, small(), "base_model.model."), "adapter_config.json beside it cannot be read"),
        (
            lambda path: write(path, small(), more={"text_encoder.x.lora_A.weight": torch.ones(1)}),
            "left over are 1 (text_",
        ),
        (
            lambda path: write(path, small(), more={"transformer.x.lora_magnitude": torch.ones(1)}),
            "left over are 1 (trans",
        ),
        (halved, "missing are 1 (transformer_blocks.0.attn.to_q: down)"),
        (lambda path: write(path, small((48, 32))), "for another model than QwenImageTransformer2DModel: left over"),
        (
            lambda path: write(path, random_lora({"blocks.0.q": (32, 32)})),
            "left over, by name or shape, are 1 (blocks.",
        ),
        (lambda path: write(path, random_lora({"double_blocks.0.q": (32, 32)}), "diffusion_model."), "no counterpart"),
    ],
)
def test_wrong_files_are_one_line(tiny_editor: Editor, tmp_path: Path, make: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        load_lora_into(tiny_editor.pipe, make(tmp_path))
    assert said in str(error.value) and "\n" not in str(error.value)
    assert not hasattr(tiny_editor.pipe.transformer, "peft_config")


def test_original_names_need_to_know_the_denoiser(tmp_path: Path) -> None:
    path = write(tmp_path, random_lora({"double_blocks.0.img_attn.proj": (32, 32)}), "diffusion_model.")
    with pytest.raises(UserError, match=r"FLUX\.1 and FLUX\.2 share these names"):
        read_lora(path)
    assert read_lora(path, "Flux2Transformer2DModel").keys() == {"transformer_blocks.0.attn.to_out.0"}


def test_unknown_denoisers_and_modules_are_refused() -> None:
    with pytest.raises(UserError, match="names of Other are unknown, those of QwenImageTransformer2DModel, Flux"):
        to_original(small(), "Other", lambda name: 32)
    with pytest.raises(UserError, match=r"no ComfyUI name: 1 \(norm_out\.linear\)"):
        to_original(random_lora({"norm_out.linear": (8, 8)}), "FluxTransformer2DModel", lambda name: 8)


def test_the_scale_comes_from_alpha_keys_then_settings_then_is_1(tmp_path: Path) -> None:
    name = "transformer_blocks.0.attn.to_q"
    save_file(matrices(small(), "transformer."), tmp_path / "a.safetensors")
    assert read_lora(tmp_path)[name].scale == 1
    header = {"lora_adapter_metadata": json.dumps({"transformer.r": 4, "transformer.lora_alpha": 6})}
    save_file(matrices(small(), "transformer."), tmp_path / "a.safetensors", metadata=header)
    assert read_lora(tmp_path)[name].scale == 1.5
    tensors = {**matrices(small(), "transformer."), f"transformer.{name}.alpha": torch.tensor(8.0)}
    save_file(tensors, tmp_path / "a.safetensors", metadata=header)
    assert read_lora(tmp_path)[name].scale == 2
