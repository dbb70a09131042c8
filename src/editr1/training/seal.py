"""The seal of a checkpoint: `state.json`, with the state of a run and the size and SHA-256 of every file beside it.

Sizes are compared wherever checkpoints are listed; contents once, where one is opened for use. A core hashes about
1.5 GB per second, and `READERS` files are hashed at a time on the main rank: a LoRA's checkpoint takes a moment, one of
40 GB (files of at most 10 GB) about 7 s when it is written, from the page cache, and as long as the disk takes when it
is opened.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editr1.data.hashes import sha256_of
from editr1.errors import UserError, first_line, first_problem, parse_json, printable
from editr1.files import sync

STATE = "state.json"
FORMAT = 2  # 1 had sizes alone
NAME = re.compile(r"step_([0-9]{6,})")
READERS = 4
Count = Annotated[int, Field(ge=0, lt=2**63)]


class State(BaseModel):
    """The content of state.json.

    Attributes:
        format: `FORMAT`, or an earlier one.
        step: Steps done.
        seconds: Spent on them.
        start: What the edits of the first step looked like.
        place: Place in the epochs of items; none before items could be banned.
        banned: Items that are not drawn any more.
        config: The settings of the run.
        files: Size of every file, by its path in the folder.
        sha256: Hash of every file; none in format 1.
        seal: Hash of all the above; none in format 1.
    """

    model_config = ConfigDict(strict=True, extra="allow")

    format: Literal[1, 2]
    step: Count
    seconds: float = Field(ge=0, allow_inf_nan=False)
    start: dict[str, float]
    place: Count | None = None
    banned: list[Count] = []
    config: dict[str, Any]
    files: dict[str, Count]
    sha256: dict[str, str] = {}
    seal: str = ""


def seal(folder: Path, state: Mapping[str, Any]) -> None:
    """Bring every file to the disk, then list them in state.json, with the entries of `state`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in files]
    sizes = {name: path.stat().st_size for name, path in zip(names, files, strict=True)}
    tree = {"format": FORMAT, **state, "files": sizes, "sha256": dict(zip(names, _hashes(files), strict=True))}
    text = json.dumps({**tree, "seal": _seal_of(tree)}, indent=1)
    (folder / STATE).write_text(text, encoding="utf-8")
    for path in [*files, folder / STATE, *(path for path in folder.rglob("*") if path.is_dir()), folder]:
        sync(path)


def read_state(folder: Path) -> dict[str, Any]:
    """The content of state.json.

    Raises:
        UserError: It is not as it was written.
    """
    file = folder / STATE
    try:
        tree = parse_json(file.read_text(encoding="utf-8"), str(file), allow_nan=True)
        state = State.model_validate(tree)
        sealed = state.seal == (_seal_of(tree) if state.format == FORMAT else "")
    except ValidationError as error:
        raise UserError(f"{file}: {first_problem(error)}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: {first_line(error)}") from error
    if not sealed:
        raise UserError(f"{file}: its content is not what was written")
    return state.model_dump()


def fault(folder: Path, contents: str | None = None) -> str | None:
    """What is wrong with a checkpoint; None if nothing is.

    Args:
        folder: The checkpoint.
        contents: A folder in it whose files are hashed, "" for all files; None compares sizes alone.
    """
    try:
        state = read_state(folder)
        _check_files(folder, state)
        if contents is not None:
            _check_contents(folder, state["sha256"], contents)
    except UserError as error:
        return str(error)
    return None


def _check_files(folder: Path, state: Mapping[str, Any]) -> None:
    """A UserError if names or sizes are not those of the state."""
    if (named := NAME.fullmatch(folder.name)) and int(named[1]) != state["step"]:
        raise UserError(f"{folder / STATE}: it is of step {state['step']}")
    for name, size in state["files"].items():
        path = PurePosixPath(name)
        if not name.isprintable() or path.is_absolute() or ".." in path.parts:
            raise UserError(f"{folder / STATE}: files: {printable(name)!r} is no file of this folder")
        try:
            now = (folder / path).stat().st_size
        except OSError as error:
            raise UserError(f"{folder}: {first_line(error)}") from error
        if now != size or not (folder / path).is_file():
            raise UserError(f"{folder / path}: it has {now} bytes instead of {size}, or is no file")
    for stranger in folder.rglob("*.safetensors"):  # its tensors might be read
        if stranger.relative_to(folder).as_posix() not in state["files"]:
            raise UserError(f"{stranger}: it is no file of this checkpoint")


def _check_contents(folder: Path, hashes: Mapping[str, str], part: str) -> None:
    names = [name for name in hashes if PurePosixPath(name).is_relative_to(part)]
    try:
        found = dict(zip(names, _hashes(folder / name for name in names), strict=True))
    except OSError as error:
        raise UserError(f"{folder}: {first_line(error)}") from error
    for name in names:
        if found[name] != hashes[name]:
            raise UserError(f"{folder / name}: its content is not what was written")


def _hashes(files: Iterable[Path]) -> list[str]:
    with ThreadPoolExecutor(READERS) as pool:
        return [*pool.map(sha256_of, files)]


def _seal_of(tree: Mapping[str, Any]) -> str:
    """The hash of a state but for its seal; JSON keeps its entries, their order and every digit."""
    text = json.dumps({key: value for key, value in tree.items() if key != "seal"})
    return hashlib.sha256(text.encode()).hexdigest()
