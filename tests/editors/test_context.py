"""Ranks that share the tokens of each call give what one process gives."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file
from torch.testing._internal.distributed.fake_pg import FakeStore

from editr1.editors.context import MASK, TEXT, coarser, open_context, padded
from editr1.editors.editor import Editor
from editr1.editors.open import check_sharing, open_config_editor
from editr1.editors.recorder import replay
from editr1.errors import UserError
from tests.editors import context_rank, rank
from tests.editors.test_sharding import Paths, run_ranks
from tests.tiny import build_once, tiny_sample

FAMILIES = ("QwenImageEditPlusPipeline", "FluxKontextPipeline", "Flux2KleinPipeline")
FAST = [way for way in context_rank.WAYS if way != "compile"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, pipeline_path: Paths) -> Path:
    """What the two ranks of tests/editors/context_rank.py give for each family."""
    folders = [pipeline_path(name) for name in FAMILIES]
    program = Path(context_rank.__file__)
    return build_once(
        tmp_path_factory, "shared tokens", lambda out: out.mkdir() or run_ranks(program, out, ",".join(FAST), *folders)
    )


def assert_same(results: Path, folder: Path, way: str) -> None:
    """Float32 is summed in another order: half of the heads, under a mask's kernel, and half of each gradient's tokens.

    The loss is a small difference of velocities, so a gradient has fewer exact digits than they have.
    """
    want = context_rank.work_of(way, open_config_editor(rank.config(folder)))
    one, other = (load_file(results / f"{folder.name}-{way}-{number}.safetensors") for number in range(rank.RANKS))
    assert one.keys() == other.keys() >= want.keys()
    extra = one.keys() - want.keys()  # of a weight without effect, compiled blocks make a gradient of zeros
    assert way == "compile" or not extra
    assert not any(each[name].any() for name in extra for each in (one, other))
    gradients = {name: want[name] for name in want if f"{name} after" in want}
    for name in want.keys() - gradients.keys():
        assert torch.equal(one[name], other[name]), name  # so that ranks go on alike
        torch.testing.assert_close(one[name], want[name], rtol=1e-6, atol=1e-6, msg=name)
    assert len(gradients) > 10
    added = "full" in way  # sharded weights: the backward pass has added up the parts
    got = {name: one[name] if added else one[name] + other[name] for name in gradients}
    assert all((got[name] - gradients[name]).norm() <= 1e-4 * gradients[name].norm() for name in gradients)
    part, total, whole = (torch.cat([each[name].flatten() for name in gradients]) for each in (one, got, want))
    assert (total - whole).norm() <= 1e-5 * whole.norm()
    assert added or (part - whole).norm() > 0.1 * whole.norm()  # each rank has a part of it alone


@pytest.mark.long
@pytest.mark.parametrize("way", FAST)
@pytest.mark.parametrize("name", FAMILIES)
def test_velocities_are_those_of_one_process_and_gradients_add_up_to_its_own(
    results: Path, pipeline_path: Paths, name: str, way: str
) -> None:
    assert_same(results, pipeline_path(name), way)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES[:2])
def test_compiled_blocks_share_tokens_too(tmp_path: Path, pipeline_path: Paths, name: str) -> None:
    run_ranks(Path(context_rank.__file__), tmp_path, "compile", pipeline_path(name))
    assert_same(tmp_path, pipeline_path(name), "compile")


@pytest.mark.parametrize("given", [False, True])
def test_padding_under_a_mask_changes_no_velocity(pipeline_path: Paths, given: bool) -> None:
    editor = open_config_editor(rank.config(pipeline_path(FAMILIES[0])))
    rollout = editor.rollout(tiny_sample("remove the ball"), 2, steps=2, seed=0)
    conditioning, t = rollout.conditioning, torch.tensor([0.3, 0.8])
    rows = conditioning.rows
    if given:
        rows[MASK] = torch.ones(rows[TEXT].shape[:2], dtype=torch.int64)
        rows[MASK][:, 3] = 0
    with torch.no_grad():
        want = replay(editor.denoiser, conditioning, editor.family, rollout.latents, t)
        rows |= padded(rows[TEXT], rows[MASK], 4)
        assert rows[TEXT].shape[1] == rows[MASK].shape[1] == 20
        got = replay(editor.denoiser, conditioning, editor.family, rollout.latents, t)
    torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6)


def test_a_text_that_divides_is_left_alone() -> None:
    text = torch.ones(1, 4, 2)
    assert padded(text, None, 2) == {TEXT: text, MASK: None}


@pytest.fixture
def opened(pipeline_path: Paths) -> Iterator[Callable[..., Editor]]:
    """An editor on the first of several ranks that do not exist: what they would send is left out."""

    def build(name: str, context: int = 2, ranks: int = 2, **sections: Any) -> Editor:
        dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=ranks)
        own = sections.pop("editor", {})
        run = rank.config(pipeline_path(name), parallel={"context": context}, **sections)
        return open_config_editor(run.model_copy(update={"editor": run.editor.model_copy(update=own)}), ranks)

    yield build
    if dist.is_initialized():
        dist.destroy_process_group()


def test_ranks_that_are_no_multiple_of_context_are_refused() -> None:
    assert open_context(3, 1, "cpu") is None
    with pytest.raises(UserError, match=r"parallel.context=2 .* and 3 is no multiple of it; .*--nproc-per-node 2"):
        open_context(3, 2, "cpu")


@pytest.mark.parametrize(
    ("name", "context", "sections", "problem"),
    [
        ("LongCatImageEditPipeline", 2, {}, "does not share the tokens of LongCatImageTransformer2DModel; set it to 1"),
        ("FluxKontextPipeline", 3, {}, "does not divide the 2 attention heads of FluxTransformer2DModel"),
        ("FluxKontextPipeline", 2, {"memory": {"attention": "_native_math"}}, "'_native_math': .* does not support"),
        ("QwenImageEditPlusPipeline", 2, {"memory": {"attention": "_native_math"}}, "under a mask, .* set it to null"),
        ("FluxKontextPipeline", 2, {"editor": {"pixels": 16 * 16}}, "editor.pixels=256: .* at least 32x32"),
    ],
)
def test_editors_that_cannot_share_tokens_are_refused(
    opened: Callable[..., Editor], name: str, context: int, sections: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem) as told:
        opened(name, context, 6, **sections)
    assert "\n" not in str(told.value)


def test_a_folder_that_lacks_its_denoiser_is_refused_as_without_context(tmp_path: Path) -> None:
    index = {"_class_name": "FluxKontextPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    check_sharing(tmp_path, 2)  # loading tells it
    index["transformer"] = ["diffusers", "FluxTransformer2DModel"]
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"cannot load the pipeline: .*config.json"):
        check_sharing(tmp_path, 2)


@pytest.mark.parametrize(
    ("name", "sections", "problem"),
    [
        ("Flux2KleinKVPipeline", {}, "keeps keys and values of the source between calls, .* set it to 1"),
        ("FluxKontextPipeline", {"editor": {"text_tokens": 15}}, "does not divide the 15 text tokens .*text_tokens"),
    ],
)
def test_calls_that_cannot_be_shared_are_refused(
    opened: Callable[..., Editor], name: str, sections: dict[str, Any], problem: str
) -> None:
    editor = opened(name, **sections)
    with pytest.raises(UserError, match=rf"parallel.context=2.* {problem}"):
        editor.rollout(tiny_sample(), 1, steps=2, seed=0)


@pytest.mark.parametrize(
    ("multiple", "context", "coarse"), [(16, 2, 32), (16, 4, 32), (16, 8, 64), (16, 3, 48), (32, 2, 32), (32, 8, 64)]
)
def test_every_picture_has_a_number_of_tokens_that_divides(multiple: int, context: int, coarse: int) -> None:
    assert coarser(multiple, 16, context) == coarse
    sides = [side // 16 for side in range(coarse, 10 * coarse, coarse)]
    assert all(wide * high % context == 0 for wide in sides for high in sides)


def test_sizes_of_edits_are_rounded_so(opened: Callable[..., Editor]) -> None:
    editor, source = opened("FluxKontextPipeline"), Image.new("RGB", (1800, 1000))
    assert editor.size_of(source, "wide") == (96, 32)  # 80x48 in one process
