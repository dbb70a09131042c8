"""A model that cannot be had or is not whole is told in one line, at once."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError
from safetensors.torch import save_file

from editr1 import model_files
from editr1.editors.open import find_family
from editr1.errors import UserError
from editr1.judges.models.local import load_processor
from editr1.model_files import UNREACHABLE, check_hub, is_hub_name, parameters, tensor_sizes, weight_files


def refusal(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response = UNREACHABLE[-1].__module__.partition(".")[0]  # the client that huggingface_hub uses
    client = __import__(response)
    request = client.Request("HEAD", "https://huggingface.co/a/b")
    return kind("two\nlines", response=client.Response(status, request=request))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (refusal(GatedRepoError, 403), "a/b is gated: accept its terms at https://huggingface.co/a/b, then log in"),
        (refusal(RepositoryNotFoundError, 404), "no folder a/b here, and the hub shows no such model"),
        (refusal(HfHubHTTPError, 503), "the hub refuses a/b"),
        (OfflineModeIsEnabled("offline mode is enabled"), "the hub cannot be reached (offline mode is enabled)"),
        (httpx.ConnectError("name unknown"), "the hub cannot be reached (name unknown); mend the path, or download"),
    ],
)
@pytest.mark.parametrize("kind", ["editor", "judge"])
def test_a_hub_name_that_cannot_be_had_is_one_line_with_a_remedy(
    kind: str, error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(model_files, "get_hf_file_metadata", fail)
    with pytest.raises(UserError) as caught:
        find_family("a/b") if kind == "editor" else load_processor(Path("a/b"))
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{kind}.path='a/b'")


def test_a_model_in_the_cache_of_the_hub_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "try_to_load_from_cache", lambda name, file: f"/cache/{name}/{file}")
    monkeypatch.setattr(model_files, "get_hf_file_metadata", None)
    check_hub("a/b", "model_index.json", "editor.path")


def test_a_hub_name_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "judge").mkdir(parents=True)
    assert is_hub_name("Qwen/Qwen2.5-VL-7B-Instruct") and not is_hub_name("models/judge")
    assert not any(map(is_hub_name, ("judge", "/a/b", "./a", "../a", "a/b/c", "toy:judge", "~/a")))


def test_parameters_are_counted_from_headers_and_missing_or_cut_shards_are_told(tmp_path: Path) -> None:
    shards = {"a.safetensors": {"x": torch.zeros(3, 4)}, "b.safetensors": {"y": torch.zeros(5, dtype=torch.bfloat16)}}
    for name, tensors in shards.items():
        save_file(tensors, tmp_path / name, metadata={"format": "pt"})
    assert parameters(tmp_path) == 17
    index = {"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file({"z": torch.zeros(100)}, tmp_path / "another.safetensors")
    assert parameters(tmp_path) == 17
    (tmp_path / "a.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-1])
    with pytest.raises(UserError, match=r"a\.safetensors: it is cut short"):
        parameters(tmp_path)
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UserError, match=r"lacks b\.safetensors"):
        parameters(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"weight_map": 3}',
        '{"weight_map": {"x": [1]}}',
        '{"weight_map": {"x": "../a"}}',
        "[" * 100_000,
        "{",
    ],
)
def test_an_index_that_is_none_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.safetensors\.index\.json"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "header", [b"[]", b"[" * 100_000, b'{"x": 1}', b'{"x": {"shape": ["a"], "data_offsets": [0, 0]}}', b'{"x": {}}']
)
def test_a_header_that_is_none_is_told(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(UserError, match=r"cannot read the weights .*a\.safetensors"):
        tensor_sizes(file)
