"""Where pages are made from templates: escaped, strict, with the reports' style sheet."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def environment() -> Environment:
    """The templates of `report/templates`; a name that is not given is an error."""
    return Environment(
        loader=PackageLoader("editr1.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
