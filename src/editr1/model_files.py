"""Models as files: whether a folder is whole and how large its weights are, and whether the hub has a model.

No weight is loaded. The libraries that download models try an unreachable hub again for minutes, and say in many lines
what is wrong; here it is one line, at once.
"""

from __future__ import annotations

import json
import math
import operator
import re
import stat
import struct
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import httpx
from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from editr1.errors import NOT_JSON, UserError, first_line, read_json

NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
PATIENCE = 10.0  # seconds
UNREACHABLE: tuple[type[Exception], ...] = (OSError, httpx.HTTPError)
with suppress(ModuleNotFoundError):  # huggingface_hub 2 uses the successor of httpx
    UNREACHABLE += (import_module("httpx2").HTTPError,)


def is_hub_name(name: str) -> bool:
    """Whether a name has the form "owner/model", and is no path here."""
    return NAME.fullmatch(name) is not None and not Path(name).exists()


def check_hub(name: str, file: str, where: str) -> None:
    """Ask the hub for one file of a model, unless it is in the hub's cache here.

    Raises:
        UserError: The hub cannot be reached, does not know the model, or refuses it; begins with `where`.
    """
    if isinstance(try_to_load_from_cache(name, file), str):
        return
    absent = f"{where}: there is no folder {name} here, and"
    try:
        get_hf_file_metadata(hf_hub_url(name, file), timeout=PATIENCE)
    except GatedRepoError as error:
        page = f"https://huggingface.co/{name}"
        raise UserError(
            f"{where}: {name} is gated: accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"{absent} the hub shows no such model; mend the name, or set HF_TOKEN if it is private"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(f"{where}: {name} on the hub has no {file}; it is another kind of model") from error
    except HfHubHTTPError as error:
        raise UserError(f"{where}: the hub refuses {name}: {first_line(error)}; try again later") from error
    except UNREACHABLE as error:
        raise UserError(
            f"{absent} the hub cannot be reached ({first_line(error)[:120]}); mend the path, or download the model "
            "where there is a network, and give its folder"
        ) from error


def refuse_devices(folder: Path, where: str) -> None:
    """Refuse a folder with a pipe or a device in it, which a library would read for ever."""
    for path in folder.rglob("*"):
        with suppress(OSError):  # a link to nothing
            kind = path.stat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise UserError(f"{where}: {path.relative_to(folder)} in it is no file; delete it")


def check_files(folder: Path) -> None:
    """Refuse a folder that holds no whole model of transformers, as far as it shows without loading it."""
    if not (folder / "config.json").is_file():
        raise UserError(f"no model in {folder}: give the folder of a model saved with save_pretrained")
    weight_files(folder)


def weight_files(folder: Path) -> list[Path]:
    """The weight files of one model: those of its index of shards, or else all safetensors files.

    Raises:
        UserError: There is none, or the index is none, or names one that is not there.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            names = sorted(set(read_json(index)["weight_map"].values()))
            outside = [name for name in names if Path(name).name != name]
        except (AttributeError, LookupError, TypeError) as error:
            raise UserError(f"{index}: it is no index of weights; copy all files of the model") from error
        if outside:
            raise UserError(f"{index}: it names a file of another folder, {outside[0]}; copy all files of the model")
        if absent := [name for name in names if not (folder / name).is_file()]:
            raise UserError(f"{folder} lacks {absent[0]}, which its {index.name} names: copy all files of the model")
        return [folder / name for name in names]
    if not (files := sorted(folder.glob("*.safetensors"))):
        raise UserError(f"{folder} holds no safetensors file: copy all files of the model")
    return files


def parameters(folder: Path) -> int:
    """Number of parameters of one model, by the headers of its weight files; errors as of `weight_files`."""
    return sum(count for file in weight_files(folder) for count in tensor_sizes(file))


def tensor_sizes(file: Path) -> list[int]:
    """Elements of each tensor in a safetensors file: eight bytes with the header's length, then the header as JSON."""
    try:
        with file.open("rb") as content:
            (length,) = struct.unpack("<Q", content.read(8))
            header = json.loads(content.read(min(length, file.stat().st_size)))
        entries = [entry for name, entry in header.items() if name != "__metadata__"]
        if 8 + length + max((entry["data_offsets"][1] for entry in entries), default=0) != file.stat().st_size:
            raise ValueError("it is cut short")
        return [math.prod(map(operator.index, entry["shape"])) for entry in entries]
    except (OSError, *NOT_JSON, AttributeError, LookupError, TypeError, struct.error) as error:
        raise UserError(f"cannot read the weights {file}: {first_line(error)}; copy the file again") from error
