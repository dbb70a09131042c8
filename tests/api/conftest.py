"""Trainers of a tiny editor, as in the tests of training."""

from __future__ import annotations

from tests.training.conftest import make as make
