"""Pages from templates: escaped, strict, with the style sheet and the number formats of all reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from editr1.files import write_file
from editr1.report.tables import text_columns
from editr1.report.text import number, percent, signed


def environment() -> Environment:
    """The templates of `report/templates`; a name that a page lacks is an error."""
    templates = Environment(
        loader=PackageLoader("editr1.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(number=number, signed=signed, percent=percent, text_columns=text_columns)
    return templates


def write_page(path: Path, template: str, **content: Any) -> Path:
    """Fill a template, write the page and return its path."""
    write_file(path, environment().get_template(template).render(content).encode(errors="replace"))
    return path
