"""Each tie rule against a count by hand or by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.evaluation.agreement import statistics
from editr1.evaluation.agreement.pairs import Pair
from editr1.evaluation.agreement.ties import BY_LAYOUT, RULES, PairScores, always_tie, best_threshold, random_answer
from tests.evaluation.agreement.cases import pair

CASES = st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([-0.4, -0.2, 0, 0.2, 0.4, 0.6])), min_size=1)


def judged(rows: list[tuple[str, float, float]], **more: object) -> PairScores:
    pairs = [pair(f"k{i}", label, **more) for i, (label, _, _) in enumerate(rows)]  # type: ignore[arg-type]
    return PairScores(pairs, np.array([a for _, a, _ in rows], float), np.array([b for _, _, b in rows], float))


def share(name: str, case: PairScores) -> float | None:
    return statistics.accuracy(RULES[name].apply(case), RULES[name], case.pairs)


NAN = float("nan")
ROWS = [("a", 0.9, 0.1), ("a", 0.1, 0.9), ("b", 0.1, 0.9), ("b", 0.5, 0.5), ("tie", 0.5, 0.500001), ("tie", 0.2, 0.4)]


@pytest.mark.parametrize(
    ("rule", "right"),
    [
        ("decided", 2 / 4),
        ("labelled", 3 / 6),
        ("threshold_exact", 4 / 6),  # ties up to 0.2: both ties and the two decisions in order
        ("threshold_official", 4 / 6),
        ("editscore", 2 / 4),
        ("genai_official", 2 / 6),
    ],
)
def test_rules_by_hand(rule: str, right: float) -> None:
    assert share(rule, judged(ROWS)) == pytest.approx(right)


def test_pair_without_a_score_is_wrong_under_every_rule() -> None:
    for label, missing in itertools.product(("a", "b", "tie"), ((NAN, 0.5), (0.5, NAN), (NAN, NAN))):
        case = judged([(label, *missing), ("a", 0.9, 0.1)])
        for rule in RULES.values():
            units = rule.apply(case)
            assert units.right[units.pair == 0].sum() == 0


@given(CASES)
def test_exact_threshold_is_the_best_of_all_that_there_are(rows: list[tuple[int, float]]) -> None:
    label, difference = (np.array(column) for column in zip(*rows, strict=True))
    right, threshold = best_threshold(difference.astype(float), label, exact=True)

    def at(t: float) -> int:
        return sum(y == 0 if abs(d) <= t else d * y > 0 for y, d in rows)

    assert right.sum() == max(at(t) for t in (-1, *np.abs(difference))) == at(threshold)


@given(CASES)
def test_official_threshold_counts_as_it_was_published(rows: list[tuple[int, float]]) -> None:
    label, difference = (np.array(column) for column in zip(*rows, strict=True))
    ordered = sorted(rows, key=lambda row: abs(row[1]))
    counts = [
        sum(y == 0 for y, _ in ordered[:ties]) + sum(d * y > 0 for y, d in ordered[ties:])
        for ties in range(1, len(rows) + 1)
    ]
    right, _ = best_threshold(difference.astype(float), label, exact=False)
    assert right.sum() == max(counts)


def test_official_threshold_is_too_high_where_differences_repeat() -> None:
    case = judged([("tie", 0.6, 0.4), ("a", 0.6, 0.4), ("a", 0.6, 0.4)])
    assert share("threshold_official", case) == 1  # the first is a tie, the others, as far apart, are not
    assert share("threshold_exact", case) == pytest.approx(2 / 3)


def group(name: str, *rows: tuple[str, float, float]) -> list[tuple[Pair, float, float]]:
    return [(pair(f"{name}{i}", label, group=name), a, b) for i, (label, a, b) in enumerate(rows)]  # type: ignore[arg-type]


def test_tiger_groups_are_right_where_all_their_pairs_are() -> None:
    three = group("three", ("a", 0.9, 0.5), ("a", 0.9, 0.1), ("a", 0.5, 0.1))
    one_off = group("three2", ("a", 0.9, 0.5), ("b", 0.9, 0.1), ("a", 0.5, 0.1))
    scores = (0.9, 0.7, 0.5, 0.3)
    four = group("four", *(("a", x, y) for x, y in itertools.combinations(scores, 2)))
    two = group("two", ("tie", 0.5, 0.4)) + group("twoo", ("a", 0.55, 0.5)) + group("twooo", ("b", 0.2, 0.9))
    rows = three + one_off + four + two
    case = PairScores([p for p, *_ in rows], np.array([a for _, a, _ in rows]), np.array([b for *_, b in rows]))
    units = RULES["tiger_exact"].apply(case)
    assert dict(zip(units.task, units.right, strict=True)) == {"3 edits": 0, "4 edits": 1, "2 edits": 1}
    assert statistics.by(units, units.task, np.ones(6, bool))["3 edits"] == {"accuracy": 0.5, "units": 2}
    # Of the pairs of two, no threshold gets all: exact 2 of 3. The script takes 0.1 for ties and order for decisions.
    assert share("tiger_exact", case) == pytest.approx((2 + 1 + 1) / 6)
    assert share("tiger_official", case) == pytest.approx((2 + 1 + 1) / 6)


def test_tiger_script_takes_ties_by_threshold_and_decisions_by_order() -> None:
    rows = [("tie", 0.5, 0.4), ("tie", 0.5, 0.4), ("a", 0.55, 0.5), ("b", 0.2, 0.9), ("b", 0.3, 0.3), ("a", 0.3, 0.3)]
    case = judged(rows)
    # Best threshold 0.1: ties right, the decision at 0.05 lost under exact; equal scores put the later edit first.
    assert share("tiger_exact", case) == pytest.approx(3 / 6)
    assert share("tiger_official", case) == pytest.approx(5 / 6)


def test_genai_ties_are_good_or_bad() -> None:
    case = judged([("tie", 0.8, 0.8), ("tie", 0.2, 0.2), ("a", 0.8, 0.2)])
    pairs = [pair(f"b{i}", p.preference, both_bad=p.preference == "tie") for i, p in enumerate(case.pairs)]
    bad = PairScores(pairs, case.a, case.b)
    assert (share("genai_official", case), share("genai_official", bad)) == (1, 1)
    assert [share("genai_exact", case), share("genai_exact", bad)] == pytest.approx([2 / 3] * 2)


def test_baselines_of_genai_are_those_of_its_counts() -> None:
    labels = ["a"] * 240 + ["b"] * 263 + ["tie"] * 416
    pairs = [pair(f"k{i}", label, both_bad=i >= 527) for i, label in enumerate(labels)]  # type: ignore[arg-type]

    def tie(name: str) -> float | None:
        return statistics.accuracy(always_tie(RULES[name], pairs), RULES[name], pairs)

    assert tie("genai_exact") == pytest.approx(392 / 919)  # the published majority row: 42.66
    assert tie("genai_official") == pytest.approx(416 / 919)
    assert statistics.accuracy(random_answer(RULES["genai_exact"], pairs), RULES["genai_exact"], pairs) == 0.25


def test_random_baseline_of_tiger_is_near_its_published_row() -> None:
    pairs = [pair(f"t{i}", "a") for i in range(186)]
    pairs += [pair(f"u{i}", "a", group=f"3/{i // 3}") for i in range(150 * 3)]
    pairs += [pair(f"v{i}", "a", group=f"4/{i // 6}") for i in range(148 * 6)]
    rule = RULES["tiger_official"]
    units = random_answer(rule, pairs)
    rows = statistics.by(units, units.task, np.ones(len(units.right), bool))
    assert [rows[f"{k} edits"]["accuracy"] for k in (2, 3, 4)] == [0.25, 0.125, 1 / 64]
    assert statistics.accuracy(units, rule, pairs) == pytest.approx(0.1384, abs=0.002)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "tie"]), st.floats(0, 1), st.floats(0, 1)), min_size=1))
def test_naming_the_edits_the_other_way_round_changes_no_exact_rule(rows: list[tuple[str, float, float]]) -> None:
    turned = {"a": "b", "b": "a", "tie": "tie"}
    there, back = judged(rows), judged([(turned[label], b, a) for label, a, b in rows])
    for name in set(RULES) - {"tiger_official"}:
        assert RULES[name].apply(there).right.tolist() == RULES[name].apply(back).right.tolist()


@given(CASES)
def test_baselines_have_the_units_of_their_rule(rows: list[tuple[int, float]]) -> None:
    pairs = [pair(f"k{i}", {1: "a", 0: "tie", -1: "b"}[label]) for i, (label, _) in enumerate(rows)]  # type: ignore[arg-type]
    for rule in RULES.values():
        chance, tie = random_answer(rule, pairs), always_tie(rule, pairs)
        assert len(chance.right) == len(chance.pair) == len(chance.task) == len(tie.right)


def test_every_layout_has_rules_and_every_rule_a_layout() -> None:
    assert {name for names in BY_LAYOUT.values() for name in names} == set(RULES)
