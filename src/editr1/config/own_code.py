"""Code of the user's own that a config names: "pkg.module:name"; in a script or a notebook the module is `__main__`.

Since the config keeps the name, the command line, every rank and a run that goes on find the same code.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editr1.algorithms.base import Algorithm
from editr1.errors import UserError, first_line

PACKAGE = str(Path(__file__).parents[1])


def load_own(name: str, what: str) -> Any:
    """What `name` names; modules of the current folder are found too, as by `python -m`.

    Raises:
        UserError: There is nothing of this name; the message calls it `what`.
    """
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), attribute)):
        raise UserError(f"{what} {name!r}: write it as pkg.module:name")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's module does while it is imported
        raise UserError(f"{what} {name!r} cannot be loaded: it {raised(error)}; mend it") from error


def raised(error: BaseException) -> str:
    """What an error of the user's own code is, and where: "raises KeyError: 'colour' (rewards.py:6)"."""
    ours = ("<frozen ", PACKAGE, str(importlib.__file__))
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    places = [f" ({Path(file).name}:{line})" for file, line in frames if not file.startswith(ours)]
    return f"raises {type(error).__name__}: {first_line(error)}{places[-1] if places else ''}"


def load_algorithm(name: str) -> type[Algorithm]:
    """The subclass of `Algorithm` that `name` names.

    Raises:
        UserError: There is none, or it is not whole.
    """
    kind = load_own(name, "algorithm.name")
    if not (isinstance(kind, type) and issubclass(kind, Algorithm)):
        raise UserError(f"algorithm.name {name!r} is no subclass of editr1.Algorithm")
    if missing := sorted(kind.__abstractmethods__) + [each for each in ("title", "parts") if not hasattr(kind, each)]:
        raise UserError(f"algorithm.name {name!r}: the class lacks {', '.join(missing)}; add them")
    if kind.model_fields["name"].annotation is not str:
        raise UserError(f"algorithm.name {name!r}: the class has the name of its parent; write `name: str` into it")
    return kind


def own_algorithm(tree: Mapping[str, Any]) -> str | None:
    """The name of a user's own algorithm in settings that nobody has checked; None if they name none."""
    settings = tree.get("algorithm")
    name = settings.get("name") if isinstance(settings, dict) else None
    return name if isinstance(name, str) and ":" in name else None
