"""The published rows of each benchmark, with their source and judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from editr1.evaluation.benchmarks.base import packaged


@dataclass(frozen=True)
class Sampling:
    """How the released scripts make the edits of published rows: denoiser calls per edit, guidance scale by editor."""

    steps: int
    guidance: Mapping[str, float]

    def __str__(self) -> str:
        scales = (f"{scale:g} ({editor})" for editor, scale in self.guidance.items())
        return f"{self.steps} steps and guidance {' or '.join(scales)}"

    def guidance_of(self, editor: str) -> float | None:
        """The scale of a folder or hub name with the name of a published editor in it; None if there is none in it."""
        scales = (scale for name, scale in self.guidance.items() if _letters(name) in _letters(editor))
        return next(scales, None)


@dataclass(frozen=True)
class Published:
    """What a paper, the source, reports of one table of a benchmark; the judge, in words, and the sampling behind it.

    The rows are means by editor and by metric and line: {"UniWorld-V2": {("score", "overall"): 4.49, ...}}.
    """

    judge: str
    sampling: Sampling
    source: str
    subset: str
    rows: Mapping[str, Mapping[tuple[str, str], float]]


def rows_in(papers: Published | None, subset: str) -> Mapping[str, Mapping[tuple[str, str], float]]:
    """The published rows of a table; empty if there are none."""
    return papers.rows if papers is not None and papers.subset == subset else {}


def published(benchmark: str) -> Published | None:
    """The published rows of a benchmark; None if there are none."""
    entry = packaged("published.yaml").get(benchmark)
    if entry is None:
        return None
    rows = {}
    for name, values in entry["rows"].items():
        columns = values if isinstance(values, dict) else dict(zip(entry["types"], values, strict=True))
        by_type = "overall" in entry["types"]
        rows[name] = {
            ((entry["metric"], column) if by_type else (column, "overall")): float(value)
            for column, value in columns.items()
        }
    return Published(entry["judge"], Sampling(**entry["sampling"]), entry["source"], entry["subset"], rows)


def _letters(name: str) -> str:
    """A name without case, blanks and signs: "flux1kontext" for "FLUX.1 Kontext" and "FLUX.1-Kontext"."""
    return "".join(filter(str.isalnum, name.lower()))
