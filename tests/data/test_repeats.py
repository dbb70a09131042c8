from hypothesis import given
from hypothesis import strategies as st

from editr1.data.repeats import Repeats, same_words


@given(st.lists(st.lists(st.sampled_from("ab"), max_size=3)))
def test_pairs_are_those_of_a_dictionary(contents: list[list[str]]) -> None:
    repeats, first, expected = Repeats(), dict[tuple[str, ...], int](), list[tuple[int, int]]()
    for line, content in enumerate(contents, start=5):
        repeats.add(line, *content)
        if first.setdefault(tuple(content), line) != line:
            expected.append((line, first[tuple(content)]))
    assert [*repeats.pairs()] == expected


def test_parts_of_a_content_are_not_run_together() -> None:
    repeats = Repeats()
    repeats.add(1, "ab", "c")
    repeats.add(2, "a", "bc")
    assert [*repeats.pairs()] == []


def test_space_and_case_do_not_make_an_instruction_another_one() -> None:
    assert same_words("  Make\tit  RED. ") == same_words("make it red.") != same_words("make it read.")
