"""Messages are lines that a terminal shows as they are."""

from __future__ import annotations

from editr1.errors import LINE, UserError


def test_each_fault_is_one_printable_line_whatever_it_repeats() -> None:
    error = UserError("the key 'a\n\x1b[2J\x9b31m\u202e\ud800': no", "ä 🐈 漢字")
    assert str(error) == "the key 'a??[2J?31m??': no\nä 🐈 漢字"


def test_a_long_line_keeps_its_beginning_and_its_end() -> None:
    words = str(UserError(f"begin{'x' * 10**6}end"))
    assert len(words) <= LINE and words.startswith("beginxx") and words.endswith("xxend")
