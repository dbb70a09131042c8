"""Where pages are made from templates: escaped, strict, with the reports' style sheet."""

from __future__ import annotations

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined


def environment(*packages: str) -> Environment:
    """Templates beside the code of `packages`, and the reports' own; a name that is not given is an error."""
    return Environment(
        loader=ChoiceLoader([*(PackageLoader(name, ".") for name in packages), PackageLoader("editr1.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
