"""The self-contained HTML report of a run."""

from editr1.report.page import build as build
