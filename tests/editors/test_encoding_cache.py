"""Encodings on disk: read, they are what was computed; anything else that they depend on is another key."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image
from safetensors import safe_open
from torch import nn

from editr1.editors.editor import Editor, Rollout
from editr1.editors.encoding_cache import Opaque, cache_encodings, digest, pack, read, remember, unpack, write
from editr1.editors.open import open_editor
from editr1.errors import UserError
from tests.tiny import PIXELS, tiny_sample

CPU = torch.device("cpu")


def load(path: Path, cache: Path | None, change: Callable[[Any], None] | None = None) -> tuple[Editor, list[str]]:
    """An editor with a cache, and a list that grows by every call of its encoders."""
    editor, calls = open_editor(path, pixels=PIXELS), list[str]()
    if change:
        with torch.no_grad():
            change(editor.pipe)
    editor.pipe.text_encoder.register_forward_hook(lambda *_: calls.append("text"))
    editor.pipe.vae.encoder.register_forward_hook(lambda *_: calls.append("vae"))
    if cache is not None:
        cache_encodings(editor.pipe, editor.denoiser, cache)
    return editor, calls


def make(editor: Editor, instruction: str = "remove the red ball", edits: int = 2, picture: int = 0) -> Rollout:
    return editor.rollout(tiny_sample(instruction, seed=picture), edits, steps=2, seed=0)


def same(rollout: Rollout, other: Rollout) -> bool:
    pictures = zip(rollout.images, other.images, strict=True)
    return torch.equal(rollout.latents, other.latents) and all(a.tobytes() == b.tobytes() for a, b in pictures)


def test_the_second_time_no_encoder_is_called_and_no_bit_differs(tiny_editor_path: Path, tmp_path: Path) -> None:
    plain, _ = load(tiny_editor_path, None)
    editor, calls = load(tiny_editor_path, tmp_path)
    right = make(plain)
    assert same(make(editor), right)
    assert sorted(set(calls)) == ["text", "vae"]
    calls.clear()
    again = make(editor)
    assert same(again, right) and not calls
    editor.self_check(again)
    other, calls = load(tiny_editor_path, tmp_path)  # as in a new run
    assert same(make(other), right) and not calls


def test_a_new_process_finds_what_was_kept(tiny_editor_path: Path, tmp_path: Path) -> None:
    make(load(tiny_editor_path, tmp_path)[0])
    code = (
        "import sys; from pathlib import Path; import torch; torch.set_num_threads(1)\n"
        "from tests.editors.test_encoding_cache import load, make\n"
        "editor, calls = load(*map(Path, sys.argv[1:])); make(editor); print('calls', calls)"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, str(tiny_editor_path), str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=300)
    assert done.stdout.splitlines()[-1] == "calls []"


def test_what_a_result_depends_on_is_in_its_key(tiny_editor_path: Path, tmp_path: Path) -> None:
    editor, calls = load(tiny_editor_path, tmp_path)
    make(editor)
    for other, new in (
        ({"instruction": "remove the blue ball"}, {"text"}),
        ({"edits": 3}, {"text"}),  # num_images_per_prompt
        ({"picture": 1}, {"text", "vae"}),
    ):
        calls.clear()
        make(editor, **other)
        assert set(calls) == new


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (lambda pipe: pipe.text_encoder.get_input_embeddings().weight.mul_(1.5), {"text"}),
        (lambda pipe: pipe.vae.encoder.conv_in.weight.mul_(1.5), {"text", "vae"}),
        (lambda pipe: pipe.tokenizer.add_tokens(["hippopotamus"]), {"text"}),
        (lambda pipe: pipe.to(torch.bfloat16), {"text", "vae"}),
        (lambda pipe: pipe.vae.enable_tiling(), {"text", "vae"}),
        (lambda pipe: pipe.transformer.proj_out.weight.mul_(1.5), set()),  # it encodes nothing
    ],
    ids=["text encoder", "vae", "tokenizer", "dtype", "tiles", "denoiser"],
)
def test_other_encoders_find_nothing(tiny_editor_path: Path, tmp_path: Path, change: Any, new: set[str]) -> None:
    make(load(tiny_editor_path, tmp_path)[0])
    editor, calls = load(tiny_editor_path, tmp_path, change)
    make(editor)
    assert set(calls) == new


def test_rows_that_are_equal_are_kept_once(tiny_editor_path: Path, tmp_path: Path) -> None:
    editor, _ = load(tiny_editor_path, tmp_path)
    make(editor, edits=5)
    lengths = []
    for path in tmp_path.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            lengths += [len(file.get_tensor(name)) for name in file.keys()]  # noqa: SIM118
    assert set(lengths) == {1}
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, "cut"], ids=["empty", "zeros", "cut"])
def test_a_broken_file_is_computed_anew(
    tiny_editor_path: Path, tmp_path: Path, content: Any, caplog: pytest.LogCaptureFixture
) -> None:
    editor, calls = load(tiny_editor_path, tmp_path)
    right = make(editor)
    for path in tmp_path.rglob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-7] if content == "cut" else content)
    calls.clear()
    with caplog.at_level(logging.WARNING, "editr1"):
        assert same(make(editor), right)
    assert set(calls) == {"text", "vae"} and "cannot be read" in caplog.text
    calls.clear()
    assert same(make(editor), right) and not calls


def test_a_disk_that_takes_nothing_costs_the_cache_alone(
    tiny_editor_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    editor, _ = load(tiny_editor_path, tmp_path)
    monkeypatch.setattr("editr1.editors.encoding_cache.save_file", full)
    with caplog.at_level(logging.WARNING, "editr1"):
        assert same(make(editor), make(load(tiny_editor_path, None)[0]))
    assert "no space left" in caplog.text and not list(tmp_path.rglob("*.*"))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"memory\.cache: cannot make the folder"):
        cache_encodings(editor.pipe, editor.denoiser, tmp_path / "file")


def test_nests_come_back_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(0)
    value: dict[str, Any] = {
        "a": [torch.randn(3, 2).bfloat16(), None, (True, 2, 0.1, "x")],
        "b": torch.randn(2, 5).t(),
        "c": torch.zeros(4, 1, dtype=torch.int64),
        "d": torch.tensor(3.0),
        "e": torch.empty(0, 3),
    }
    tensors: dict[str, torch.Tensor] = {}
    tree = pack(value, tensors)
    assert json.loads(json.dumps(tree)) == tree
    write(tmp_path / "x" / "v.safetensors", tree, tensors)
    for back in (unpack(tree, tensors, CPU), *(read(tmp_path / "x" / "v.safetensors", CPU) or ())):
        assert type(back["a"][2]) is tuple and back["a"][1:] == [None, (True, 2, 0.1, "x")]
        assert back["a"][0].dtype == torch.bfloat16 and torch.equal(back["a"][0], value["a"][0])
        assert all(torch.equal(back[name], value[name]) and back[name].is_contiguous() for name in "bcde")
    assert read(tmp_path / "none", CPU) is None


@torch.no_grad()
def test_latents_are_drawn_anew_from_what_was_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=2, sample_size=16).eval()
    pipe = SimpleNamespace(_execution_device=CPU)
    picture = torch.rand(2, 3, 16, 16)
    encode = remember(pipe, vae.encode, tmp_path, "")
    encode(picture)
    for answer, right in (
        (encode(picture).latent_dist, vae.encode(picture).latent_dist),
        (encode(picture, return_dict=False)[0], vae.encode(picture, return_dict=False)[0]),
    ):
        assert type(answer) is DiagonalGaussianDistribution and torch.equal(answer.mode(), right.mode())
        draws = [d.sample(torch.Generator().manual_seed(s)) for s in (1, 2) for d in (answer, right)]
        assert torch.equal(draws[0], draws[1]) and torch.equal(draws[2], draws[3])
        assert not torch.equal(draws[0], draws[2])


def test_calls_that_cannot_be_kept_go_through(tmp_path: Path) -> None:
    pipe, calls = SimpleNamespace(_execution_device=CPU), list[Any]()

    def encode(x: Any) -> Any:
        calls.append(x)
        return object() if x == "odd" else x

    encode = remember(pipe, encode, tmp_path, "")
    layer, weight = nn.Identity(), torch.ones(1, requires_grad=True)
    assert encode(layer) is layer and encode(weight) is weight and encode("odd") is not encode("odd")
    assert len(calls) == 4 and not list(tmp_path.iterdir())
    with pytest.raises(TypeError):
        encode()


def test_digests_tell_contents_apart_and_nothing_else() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    values: list[Any] = [
        None, True, 1, 1.0, "1", "", [], (), {}, [1], [[1]], ["1"], [1, 2], [12], ["a", "b"], ["ab", ""],
        {"a": 1}, {"a": 2}, torch.zeros(2), torch.zeros(2).bfloat16(), torch.zeros(1, 2), torch.ones(2).int(),
        torch.ones(2), picture, picture[::-1], picture.reshape(4, 2, 6), Image.fromarray(picture),
        Image.fromarray(picture[::-1]),
        torch.float32, torch.bfloat16, torch.device("cpu"), torch.device("cuda:0"),
    ]  # fmt: skip
    assert len({digest(value) for value in values}) == len(values)
    assert digest([torch.zeros(4, 2).t()]) == digest([torch.zeros(2, 4)])
    assert digest(torch.device("cuda:0")) == digest(torch.device("cuda:1"))
    assert digest(Image.fromarray(picture)) == digest(Image.fromarray(picture.copy()))
    with pytest.raises(Opaque):
        digest([1, object()])
