"""Encodings of prompts and sources on disk: a frozen encoder computes each of them once.

`cache_encodings` wraps, from outside, the methods by which any pipeline encodes: `encode_prompt` (text, and the source
if a text encoder sees it) and `vae.encode`. A key is the SHA-256 of the method, of all its arguments by content, and of
all else that determines the result: the pipeline's class, the library's version, tokenizers, and the encoders' configs,
number formats and weights (a sample of every tensor).

A value is one safetensors file: tensors, and in the metadata, as JSON, the nest that holds them. Files are written
under another name and renamed, so processes may share a folder. An encoding whose file cannot be read is computed
again. A result is the same whether it is computed or read: equal bit for bit, contiguous, and writable by the caller.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import logging
import os
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
import transformers
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from PIL.Image import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from editr1.errors import UserError

log = logging.getLogger(__name__)

SAMPLE = 64
"""Entries of every weight tensor in a fingerprint."""
PLAIN = (bool, int, float, str, type(None))
Tree = dict[str, Any]


class Opaque(Exception):
    """A value of a kind that has no key or cannot be stored."""


def cache_encodings(pipe: Any, denoiser: nn.Module, folder: Path) -> None:
    """Store the results of the pipeline's encoders in `folder`, and read them from there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"memory.cache: cannot make the folder {folder}: {error}") from error
    parts = {name: part for name, part in pipe.components.items() if part is not denoiser}
    words = fingerprint(pipe, parts) + str(getattr(denoiser, "dtype", None))
    for owner, name in encoders_of(pipe):
        salt = words if owner is pipe else fingerprint(pipe, {"vae": owner})
        setattr(owner, name, remember(pipe, getattr(owner, name), folder, salt))


def encoders_of(pipe: Any) -> list[tuple[Any, str]]:
    """The methods by which a pipeline encodes: each one's owner, the pipeline or its VAE, and its name."""
    prompts = [name for name in dir(type(pipe)) if name == "encode_prompt" or name.startswith("encode_prompt_")]
    vae = pipe.components.get("vae")
    return [(pipe, name) for name in prompts] + [(vae, "encode")] * hasattr(vae, "encode")


def remember(pipe: Any, method: Callable[..., Any], folder: Path, salt: str) -> Callable[..., Any]:
    """`method` with its results stored in `folder`, except those of calls without a key or with gradients."""
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        device = pipe._execution_device
        try:
            if torch.is_grad_enabled() and any(getattr(v, "requires_grad", False) for v in bound.arguments.values()):
                raise Opaque("an argument needs gradients")
            key = digest([salt, method.__name__, device, bound.arguments])
        except Opaque as reason:
            log.debug("memory.cache: %s is not cached: %s", method.__name__, reason)
            return method(*args, **kwargs)
        path = folder / key[:2] / f"{key}.safetensors"
        if (stored := read(path, device)) is not None:
            return stored[0]
        result, tensors = method(*args, **kwargs), dict[str, Tensor]()
        try:
            tree = pack(result, tensors)
        except Opaque as reason:
            log.debug("memory.cache: %s is not cached: %s", method.__name__, reason)
            return result
        write(path, tree, tensors)
        return unpack(tree, tensors, device)

    return call


def digest(value: Any) -> str:
    """SHA-256 of a value by its content; Opaque if it holds more than plain values, tensors, arrays and pictures."""
    hasher = hashlib.sha256()
    _feed(hasher.update, value)
    return hasher.hexdigest()


def fingerprint(pipe: Any, parts: dict[str, Any]) -> str:
    """Digest of all that determines the results of some components of a pipeline, besides their arguments."""
    traits: list[Any] = [type(pipe).__name__, diffusers.__version__, transformers.__version__]
    for name, part in sorted(parts.items()):
        traits += [name, type(part).__name__, *(_model(part) if isinstance(part, nn.Module) else [_text(part)])]
    return digest(traits)


def pack(value: Any, tensors: dict[str, Tensor]) -> Tree:
    """The nest `value` as JSON; its tensors go into `tensors`, one row of each if all rows are equal."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        same = value.ndim > 0 and len(value) > 1 and torch.equal(value, value[:1].expand_as(value))
        rows = (value[:1] if same else value).detach()
        tensors[name] = rows.to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {"tensor": name, "rows": len(value) if same else None, "host": value.device.type == "cpu"}
    if isinstance(value, PLAIN):
        return {"plain": value}
    if type(value) in (list, tuple):
        return {type(value).__name__: [pack(item, tensors) for item in value]}
    if type(value) is dict and all(isinstance(key, str) for key in value):
        return {"dict": {key: pack(item, tensors) for key, item in value.items()}}
    if type(value) is DiagonalGaussianDistribution:
        return {"gaussian": pack(value.parameters, tensors), "deterministic": value.deterministic}
    if type(value) is AutoencoderKLOutput:
        return {"encoded": pack(value.latent_dist, tensors)}
    raise Opaque(f"a result is a {type(value).__name__}")


def unpack(tree: Tree, tensors: dict[str, Tensor], device: torch.device) -> Any:
    """The value that `pack` packed; tensors that were not on the CPU go to `device`."""
    down = functools.partial(unpack, tensors=tensors, device=device)
    if "tensor" in tree:
        tensor, rows = tensors[tree["tensor"]], tree["rows"]
        tensor = tensor if tree["host"] else tensor.to(device)
        return tensor if rows is None else tensor.expand(rows, *tensor.shape[1:]).contiguous()
    if "plain" in tree:
        return tree["plain"]
    if "dict" in tree:
        return {key: down(item) for key, item in tree["dict"].items()}
    if "gaussian" in tree:
        return DiagonalGaussianDistribution(down(tree["gaussian"]), deterministic=tree["deterministic"])
    if "encoded" in tree:
        return AutoencoderKLOutput(latent_dist=down(tree["encoded"]))
    return [*map(down, tree["list"])] if "list" in tree else tuple(map(down, tree["tuple"]))


def read(path: Path, device: torch.device) -> tuple[Any] | None:
    """The value in a file, as a tuple of one; None if there is no file or it is broken."""
    try:
        with safe_open(path, "pt") as file:
            tree = json.loads(file.metadata()["tree"])
            return (unpack(tree, {name: file.get_tensor(name) for name in file.keys()}, device),)  # noqa: SIM118
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        log.warning("memory.cache: %s cannot be read (%s); computing it again", path, error)
        return None


def write(path: Path, tree: Tree, tensors: dict[str, Tensor]) -> None:
    """Write a file whole or not at all; a full disk costs the cache, not the run."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, part, metadata={"tree": json.dumps(tree)})
        part.replace(path)
    except (OSError, SafetensorError) as error:
        log.warning("memory.cache: cannot write %s: %s", path, error)
        part.unlink(missing_ok=True)


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Add a value by its content; kind and length come first, so that no two values give the same bytes."""
    if isinstance(value, (*PLAIN, torch.dtype)):
        content = repr(value).encode()
    elif isinstance(value, torch.device):
        content = value.type.encode()  # the index of a device does not change a result
    elif isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        content = f"{value.dtype} {tuple(value.shape)} {value.device.type} ".encode() + flat.numpy().tobytes()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        content = f"{value.dtype} {value.shape} ".encode() + value.tobytes()
    elif isinstance(value, Image):
        content = f"{value.mode} {value.size} {value.getpalette()} ".encode() + value.tobytes()
    elif isinstance(value, list | tuple | dict):
        update(f"{type(value).__name__} {len(value)};".encode())
        for item in value.items() if isinstance(value, dict) else value:
            _feed(update, item)
        return
    else:
        raise Opaque(f"an argument is a {type(value).__name__}")
    kind = "Image" if isinstance(value, Image) else type(value).__name__
    update(f"{kind} {len(content)};".encode() + content)


def _model(model: nn.Module) -> list[Any]:
    """A model's config, settings such as tiling, and the name, format, shape and some entries of every tensor."""
    config: Any = getattr(model, "config", None)
    settings = {k: v for k, v in vars(model).items() if not k.startswith("_") and isinstance(v, bool | int | float)}
    tensors = [(name, str(t.dtype), tuple(t.shape)) for name, t in model.state_dict().items()]
    return [_text(config), sorted(settings.items()), tensors, _entries(model.state_dict().values())]


@torch.no_grad()
def _entries(tensors: Iterable[Tensor]) -> Tensor:
    """`SAMPLE` evenly spread entries of every tensor, as float64 on the CPU; one copy per device."""
    rows: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        flat = tensor.detach().reshape(-1)
        places = torch.linspace(0, max(len(flat) - 1, 0), min(SAMPLE, len(flat)), dtype=torch.float64)
        rows.setdefault(flat.device, []).append(flat[places.long().to(flat.device)].double())
    return torch.cat([torch.cat(entries).cpu() for entries in rows.values()] or [torch.empty(0)])


def _text(part: Any) -> str:
    """A tokenizer's rules, or the settings of a processor, scheduler or config."""
    tokenizer = getattr(part, "tokenizer", part)
    backend, template = getattr(tokenizer, "backend_tokenizer", None), getattr(part, "chat_template", None)
    rules = ""
    if backend is not None:  # padding and truncation belong to the last call, not to the tokenizer
        rules = json.dumps({**json.loads(backend.to_str()), "padding": None, "truncation": None})
    elif hasattr(tokenizer, "get_vocab"):
        rules = repr(sorted(tokenizer.get_vocab().items()))
    if hasattr(part, "to_json_string"):
        return f"{rules} {template!r} {part.to_json_string()}"
    settings = part if isinstance(part, dict) else getattr(part, "config", None)
    return f"{rules} {template!r} {json.dumps(dict(settings or {}), sort_keys=True, default=str)}"
