"""Formulas of rewards against Python's own arithmetic, and all texts that are none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editr1.config.formula import parse_formula
from editr1.config.loading import load_config
from editr1.errors import UserError

NAMES = ("judge", "kept", "a_1")
ATOMS = st.sampled_from([*NAMES, "0.6", "0.4", "1", "0.25"])
EXPONENTS = st.sampled_from(["0.2", "0.5", "1", "2", "3.5", "100"])
SPACE = st.sampled_from(["", " ", "\n  "])


@st.composite
def formulas(draw: Any, depth: int = 3) -> str:
    """A text that Python reads as we do."""
    if depth == 0 or draw(st.booleans()):
        return str(draw(ATOMS))
    if draw(st.integers(0, 3)) == 0:
        return f"({draw(formulas(depth - 1))}){draw(SPACE)}**{draw(SPACE)}{draw(EXPONENTS)}"
    sign, left, right = draw(st.sampled_from("+*")), draw(formulas(depth - 1)), draw(formulas(depth - 1))
    whole = f"{left}{draw(SPACE)}{sign}{draw(SPACE)}{right}"
    return f"({whole})" if draw(st.booleans()) else whole


@given(formulas(), st.tuples(*[st.floats(0, 1)] * 3), st.data())
def test_a_formula_is_what_python_computes_and_rises_in_every_name(
    text: str, at: tuple[float, ...], data: st.DataObject
) -> None:
    values = dict(zip(NAMES, at, strict=True))

    def python(values: dict[str, float]) -> float:
        return float(eval(f"({text})", {}, values))

    least, greatest = python(dict.fromkeys(NAMES, 0.0)), python(dict.fromkeys(NAMES, 1.0))
    if greatest > 1 + 1e-9 or greatest == least:
        with pytest.raises(ValueError, match=r"lower its numbers|is always"):
            parse_formula(text)
        return
    formula = parse_formula(text)
    assert formula.value(values) == min(python(values), 1.0) and 0 <= formula.value(values) <= 1
    assert set(formula.names) == {name for name in NAMES if name in text}
    for name in formula.names:
        more = values | {name: data.draw(st.floats(values[name], 1))}
        assert formula.value(more) >= formula.value(values) - 1e-12  # a power is rounded


def test_the_gated_reward_of_firm_is_its_closed_form() -> None:
    # editing/flow_grpo/rewards.py of VisionXLab/FIRM-Reward: exec * (w1 + w2 * cons) / (w1 + w2), w1=0.6, w2=0.4
    formula = parse_formula("execution * (0.6 + 0.4 * consistency)")
    for execution in (0.0, 0.25, 0.5, 1.0):
        for consistency in (0.0, 0.75, 1.0):
            value = formula.value({"execution": execution, "consistency": consistency})
            assert value == pytest.approx(execution * (0.6 + 0.4 * consistency) / (0.6 + 0.4), abs=1e-15)
    assert formula.names == ("execution", "consistency")


def test_products_bind_closer_than_sums() -> None:
    at = {"a": 0.5, "b": 0.25, "c": 1.0}
    assert parse_formula("0.5 * a + 0.5 * b * c").value(at) == 0.375
    assert parse_formula("0.5*(a+b)*c").value(at) == 0.375
    assert parse_formula("0.7 * a + 0.1 * b + 0.2 * c").value(dict.fromkeys(at, 1.0)) == 1.0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its end where a name or a number"),
        ("a - b", "has '-', which it may not"),
        ("a / b", "has '/', which"),
        ("a ** b", "has b where an exponent should be, a number above 0"),
        ("a ** (2)", r"has \( where an exponent"),
        ("a ** 0", "has 0 where an exponent"),
        ("a **", "has its end where an exponent"),
        ("a ** -1", "has '-', which"),
        ("a ** 2 ** 2", r"has '\*\*' where \+ or \* should be"),
        ("a * * b", r"has \* where a name"),
        ("** a", r"has \*\* where a name"),
        ("2 ** 0.5 * a", "reaches 1.41421, and a reward is at most 1"),
        ("a * 0 * " + "9" * 400, "reaches nan"),
        ("0 * (" + "9" * 300 + " * a) ** 2", "reaches nan"),
        ("(" + "9" * 300 + " * a) ** 2", "reaches inf"),
        ("a b", r"has 'b' where \+ or \* should be"),
        ("2a", "has 'a' where"),
        ("0.5 * (a + b", r"lacks a \)"),
        ("a)", r"has '\)' where"),
        ("-1 * a", "has '-'"),
        ("1e3 * a", "has 'e3' where"),
        (".5 * a", r"has '\.', which"),
        ("٣ * a", "has '٣', which"),
        ("ä", "has 'ä', which"),
        ("a.b", r"has '\.', which"),
        ("f(a)", r"has '\(' where"),
        ("a + b", "reaches 2, and a reward is at most 1"),
        ("1.1 * a", "reaches 1.1"),
        ("0.5", "is always 0.5"),
        ("0 * a", "is always 0"),
        ("(" * 51 + "a" + ")" * 51, "at most 1000 characters and 50 parentheses"),
        ("a" * 1001, "at most 1000 characters"),
    ],
)
def test_what_is_no_formula_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_formula(text)


@given(st.text(st.sampled_from("ab01. +*()\n-_"), max_size=40), st.floats(0, 1))
def test_any_text_is_a_formula_in_range_or_refused(text: str, at: float) -> None:
    try:
        formula = parse_formula(text)
    except ValueError:
        return
    assert 0 <= formula.value(dict.fromkeys(formula.names, at)) <= 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.floats(0.05, 0.95))
def test_exponents_that_add_up_to_one_make_the_geometric_mean(at: list[float], share: float) -> None:
    share = round(share, 3)
    value = parse_formula(f"a ** {share} * b ** {1 - share:.3f}").value(dict(zip("ab", at, strict=True)))
    expected = 0.0 if min(at) == 0 else math.exp(share * math.log(at[0]) + (1 - share) * math.log(at[1]))
    assert value == pytest.approx(expected, rel=1e-9)
    assert min(at) * (1 - 1e-9) <= value <= max(at) * (1 + 1e-9)


def test_a_power_binds_closer_than_a_product() -> None:
    assert parse_formula("a * b ** 2").value({"a": 0.5, "b": 0.5}) == 0.125
    assert parse_formula("(a * b) ** 2").value({"a": 0.5, "b": 0.5}) == 0.0625


GATED = 'rewards={kept: {kind: preservation}, gated: {kind: product, formula: "%s"}}'


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        (['judge.formula="execution *"'], "judge.formula: the formula 'execution .' has its end where"),
        (['judge.formula="a"', "judge.criteria={a: 1}"], "judge.formula names its criteria itself"),
        (["judge.criteria_by_task={style: a *}"], "judge.criteria_by_task.style: the formula 'a .' has its end where"),
        (["judge.criteria_by_task={style: {a: -1}}"], "judge.criteria_by_task.style.a: Input should be greater"),
        (["judge.criteria_by_task={style: [a]}"], "judge.criteria_by_task.style: Input should be a valid dictionary"),
        (["judge.criteria_by_task={style: {}}"], "criteria_by_task: a task has no criteria"),
        (["judge.method=ranking", 'judge.formula="a"'], "judge.formula: method ranking .* leave formula out"),
        (["judge.method=template", "judge.scale=[1, 5]"], "judge.scale: method template has words"),
        (["judge.weight=0"], "judge: weight=0 counts for no task"),
        ([GATED % "judge * nope"], "rewards.gated.formula: there is no reward 'nope'; there are judge, kept"),
        ([GATED % "judge * gated"], "rewards.gated.formula: 'gated' is a formula itself; write it out"),
        ([GATED % "judge +"], "rewards.gated.formula: the formula 'judge .' has"),
        ([GATED % "judge * kept", "judge.weight=2"], "judge: it counts in rewards.gated alone; leave weight"),
        ([GATED % "judge * kept", "rewards.kept.weight=2"], "rewards.kept: it counts in rewards.gated alone"),
        (
            [GATED % "judge * kept", "rewards.gated.missing={keep: 1}"],
            "rewards.gated.missing: 'keep' is not in its formula",
        ),
        (
            [GATED % "judge * kept", "rewards.gated.missing={kept: 2}"],
            "rewards.gated.missing.kept: .* less than or equal",
        ),
        (["rewards={f: {kind: product}}"], "`formula` belongs to kind .product."),
        (["rewards={f: {kind: ocr, formula: a}}"], "`formula` belongs to kind .product."),
    ],
)
def test_formulas_of_a_run_are_refused_in_one_line(overrides: list[str], problem: str) -> None:
    with pytest.raises(UserError, match=problem) as caught:
        load_config("toy", overrides)
    assert "\n" not in str(caught.value)
