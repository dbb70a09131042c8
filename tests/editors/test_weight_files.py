"""Ranks write the files that one process writes, and read their parts of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from editr1.editors.open import open_editor
from editr1.editors.policies import FILES
from editr1.editors.weight_files import open_tensors, read_part, save_tensors, write_parts
from tests.editors import weight_ranks
from tests.editors.test_sharding import run_ranks
from tests.editors.weight_ranks import LIMIT, PATTERN, tensors


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("ranks", "shard"), [(3, 3), (4, 2)])
def test_ranks_write_the_files_of_one_process_read_their_parts_and_fail_together(
    tmp_path: Path, ranks: int, shard: int
) -> None:
    write_parts(tensors(), tmp_path / "one", PATTERN, LIMIT)
    run_ranks(Path(weight_ranks.__file__), tmp_path, shard, ranks=ranks)
    files = contents(tmp_path / "one")
    assert len(files) > 3 and contents(tmp_path / "parts") == files
    told = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(ranks)]
    assert all(each["equal"] for each in told)
    *others, full = [each["problem"] for each in told[:shard]]
    assert others == ["another rank could not write its files"] * (shard - 1)
    assert "File too large" in full
    assert [each["problem"] for each in told[shard:]] == [None] * (ranks - shard)  # they write nothing


def test_tensors_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_parts(tensors(), tmp_path, PATTERN)
    assert [*contents(tmp_path)] == ["weights.safetensors"]
    parts = open_tensors([tmp_path / "weights.safetensors"])
    read = {name: read_part(part) for name, part in parts.items()}
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert read[name].dtype == tensor.dtype and torch.equal(read[name], tensor)


def test_metadata_is_sorted_and_the_library_reads_what_it_would_have_written(tmp_path: Path) -> None:
    metadata = {name: f'{name} "ü\\ \n\x01\x7f ✓' for name in "zaqmxkd"}
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(1, dtype=torch.bfloat16)}
    save_tensors(tensors, tmp_path / "one", metadata)
    save_file(tensors, tmp_path / "other", metadata={"format": "pt", **metadata})
    one, other = (tmp_path / name for name in ("one", "other"))
    assert one.stat().st_size == other.stat().st_size
    with safe_open(one, "pt") as file:
        assert file.metadata() == {"format": "pt", **metadata}
    assert all(torch.equal(value, tensors[name]) for name, value in load_file(one).items())
    length = int.from_bytes(one.read_bytes()[:8], "little")
    header = json.loads(one.read_bytes()[8 : 8 + length])
    assert [*header["__metadata__"]] == sorted(metadata | {"format": ""})
    assert one.read_bytes()[8 + length :] == other.read_bytes()[8 + length :]


@pytest.mark.parametrize("limit", [10**10, 100_000])
def test_a_denoisers_files_are_those_that_diffusers_writes(
    pipeline_path: Callable[[str], Path], tmp_path: Path, limit: int
) -> None:
    denoiser = open_editor(pipeline_path("FluxKontextPipeline")).pipe.transformer
    denoiser.save_pretrained(tmp_path / "theirs", max_shard_size=limit)
    write_parts(denoiser.state_dict(), tmp_path / "ours", FILES, limit)
    theirs, ours = contents(tmp_path / "theirs"), contents(tmp_path / "ours")
    del theirs["config.json"]
    assert (len(ours) > 2) == (limit < 10**10)
    for name in [name for name in theirs if name.endswith(".json")]:
        assert json.loads(ours.pop(name)) == json.loads(theirs.pop(name))
    assert ours == theirs
    loaded: dict[str, torch.Tensor] = {}
    for path in (tmp_path / "ours").glob("*.safetensors"):
        loaded |= load_file(path)
    assert loaded.keys() == denoiser.state_dict().keys()


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o775, 0o664), (0o700, 0o600)])
def test_who_may_read_a_folder_may_read_its_weights(tmp_path: Path, folder: int, file: int) -> None:
    tmp_path.chmod(folder)
    save_tensors(tensors(), tmp_path / "weights.safetensors", {})
    assert (tmp_path / "weights.safetensors").stat().st_mode & 0o777 == file
