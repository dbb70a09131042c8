"""benchmarks/claims.py: what the page of results says is what the committed figures say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from editr1.ablation import figures, timing
from editr1.config.presets import read_preset
from editr1.errors import UserError
from tests.benchmarks.scripts import BENCHMARKS, script
from tests.documents import read


@pytest.fixture(scope="module")
def claims() -> Iterator[ModuleType]:
    """The script, imported as `python benchmarks/claims.py` does."""
    with script("claims") as module:
        yield module


def entry(gain: float, more: float, half: float = 0.01) -> dict[str, Any]:
    """Figures of a variant."""
    around = {"ci95": [gain - half, gain + half], "more_ci95": [more - half, more + half]}
    return {"seeds": 3, "edits": 144, "gain": gain, "more": more, **around}


def ablation(**variants: dict[int, tuple[float, float]]) -> dict[str, Any]:
    """An ablation of the oracle's and the judge's gains by step."""
    first = next(iter(variants.values()))
    return {
        "variants": {
            name: {
                "settings": [],
                "timed": None,
                "seconds": {},
                "images": {},
                "steps": {
                    str(at): {"oracle": entry(oracle, oracle - first[at][0]), "judge": entry(judge, 0)}
                    for at, (oracle, judge) in steps.items()
                },
            }
            for name, steps in variants.items()
        }
    }


def test_the_page_of_results_and_its_plots_are_what_the_committed_figures_make(claims: ModuleType) -> None:
    found = claims.read_ablations()
    assert claims.PAGE.read_text(encoding="utf-8") == claims.page(claims.read_claims(), found)
    drawn = {file.stem for file in claims.PLOTS.glob("*.svg")}
    curves = {f"{name}_steps" for name, each in found.items() if claims.parting.measured_twice(each)}
    assert curves and ({claims.MAIN} & {*found}) | curves <= drawn


def test_every_claim_is_about_a_variant_of_a_shipped_grid_and_none_compares_the_first_one_with_itself(
    claims: ModuleType,
) -> None:
    for claim in claims.read_claims():
        variants = list(yaml.safe_load((BENCHMARKS / "grids" / f"{claim.grid}.yaml").read_text())["variants"])
        assert claim.variant in (variants if claim.against == "untrained" else variants[1:])


def test_committed_figures_are_those_of_the_grids_as_they_are(claims: ModuleType) -> None:
    for name, found in claims.read_ablations().items():
        grid = yaml.safe_load((BENCHMARKS / "grids" / f"{name}.yaml").read_text())
        assert found["grid"]["variants"] == grid["variants"]
        assert found["grid"]["steps"] == grid["steps"]
        assert {*found["variants"]} == {*grid["variants"]}


def test_committed_figures_are_those_of_the_kept_measurements(
    claims: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "interval", lambda values: None)  # the bootstrap takes minutes
    for name, found in claims.read_ablations().items():
        if "runs" in found["made"]:
            grid = claims.grid_of(name).model_copy(update={"seeds": found["grid"]["seeds"]})
            claims.take(name, tmp_path / name)
            curves = figures.read_curves(grid, tmp_path / name)
            assert sum(by["runs"] for by in found["made"]["runs"]) == sum(map(len, curves.values()))
            again = figures.summarise(grid, curves, timing.read_seconds(tmp_path / name))
            for variant, own in means(json.loads(json.dumps(again))).items():
                before = means(found["variants"][variant])  # by an earlier version, so without what is newer
                assert {key: own[key] for key in before} == before


def test_the_docs_weigh_the_reward_for_what_is_kept_as_measured_and_the_addition_takes_their_weight(
    claims: ModuleType,
) -> None:
    told, ablations = read("docs/preservation.md"), claims.read_ablations()
    editors = [ablations[name] for name in ("preserve_longer", "preserve_longer_kontext")]
    addition = yaml.safe_load(read_preset("+preserve"))["rewards"]["kept"]["weight"]
    for name in [*editors[0]["variants"]][1:]:
        [weight] = re.findall(r"weight: ([0-9.]+)}", *editors[0]["variants"][name]["settings"])
        cells = [cell for found in editors for cell in weighed(claims, found, name)]
        mark = " (`+preserve`)" if float(weight) == addition else ""
        assert f"| {weight}{mark} | {' | '.join(cells)} |" in told
    shares = " or ".join(weighed(claims, found, "mixed_03")[0] for found in editors)
    assert f"more is kept and {shares} of what training gains in `done` stays" in read("docs/hacking.md")
    for found in editors:
        done, preserved = (claims.figure_here(found, "mixed_03", part) for part in claims.PARTS)
        usual = claims.figure_here(found, "default", "done")["gain"]
        assert done["gain"] >= 0.9 * usual and preserved["more_ci95"][0] > 0
        assert found["variants"]["mixed_03"]["settings"] == [f"rewards.kept={{kind: preservation, weight: {addition}}}"]
    for grid, name, part, key in (
        ("preserve_worsened", "default", "done", "gain"),
        ("preserve_worsened", "mixed_03", "done", "gain"),
        ("preserve_worsened", "mixed_03", "preserved", "more"),
        ("preserve_worsened", "mixed_third", "preserved", "more"),
        ("preserve_worsened", "mixed", "preserved", "more"),
        ("preserve_kontext", "by_region", "preserved", "more"),
    ):
        entry = claims.figure_here(ablations[grid], name, part)
        assert claims.words(entry, key).replace("−", "-") in told.replace("−", "-")
    share, _ = weighed(claims, ablations["preserve_kontext"], "by_region")
    assert f"they keep {share} of the gain in `done`" in told


def weighed(claims: ModuleType, found: Any, name: str) -> list[str]:
    """The share of the gain in "done" that a variant keeps, and how much more it preserves, as cells of a table."""
    if name not in found["variants"]:
        return ["", ""]
    done, preserved = (claims.figure_here(found, name, part) for part in claims.PARTS)
    share = done["gain"] / claims.figure_here(found, "default", "done")["gain"]
    return [f"{share:.0%}", claims.words(preserved, "more")]


def means(figures: Any) -> Any:
    """Figures without their intervals."""
    if isinstance(figures, dict):
        return {key: means(value) for key, value in figures.items() if not key.endswith("ci95")}
    return pytest.approx(figures, abs=1e-12) if isinstance(figures, float) else figures


@pytest.mark.parametrize(
    ("expected", "interval", "said"),
    [
        ("more", [0.01, 0.02], "agrees"),
        ("more", [-0.02, -0.01], "**disagrees**"),
        ("less", [-0.02, -0.01], "agrees"),
        ("less", [0.01, 0.02], "**disagrees**"),
        ("less", [-0.01, 0.02], "no difference shown"),
        ("more", [0.0, 0.02], "no difference shown"),
    ],
)
def test_a_claim_is_judged_by_sign_and_interval(
    claims: ModuleType, expected: str, interval: list[float], said: str
) -> None:
    assert claims.verdict(expected, interval) == said


def test_variants_are_compared_at_equal_time_if_steps_were_timed_and_at_the_last_step_otherwise(
    claims: ModuleType,
) -> None:
    found = ablation(usual={5: (0.1, 0.1), 10: (0.2, 0.2)}, other={5: (0.1, 0.1), 10: (0.3, 0.2)})
    where, figures = claims.figure_of(found, "other")
    assert (where, round(figures["more"], 9)) == ("step 10", 0.1)
    found["variants"]["other"]["seconds"] = {
        "40.0": {"oracle": entry(0.5, 0.4)},
        "7.0": {"oracle": entry(0.4, 0.3)},
        "90.0": {"oracle": None},
    }
    where, figures = claims.figure_of(found, "other")
    assert (where, figures["more"]) == ("40 s of training", 0.4)
    assert claims.figure_of(found, "missing") is None


def test_a_variant_not_measured_where_the_first_one_was_has_no_figures_in_the_table(
    claims: ModuleType,
) -> None:
    found = ablation(usual={10: (0.2, 0.2)}, quick={10: (0.3, 0.2)})
    for name, times in {"usual": ("40.0", "70.0"), "quick": ("40.0",)}.items():
        found["variants"][name]["seconds"] = {at: {"oracle": entry(0.5, 0.4)} for at in times}
    found["variants"]["quick"]["seconds"]["70.0"] = {"oracle": None}
    sheet = claims.sheet_of("any", found)
    assert sheet["at"] == "70 s of training"
    assert [row["oracle"] is None for row in sheet["rows"]] == [False, True]


def test_a_claim_of_training_itself_is_judged_by_the_gain_and_one_of_a_part_by_that_part(claims: ModuleType) -> None:
    found = ablation(usual={10: (0.1, 0.1)}, other={10: (0.3, 0.3)})
    found["variants"]["other"]["steps"]["10"]["preserved"] = entry(-0.2, -0.25)
    about = {"claim": "C", "source": "S", "grid": "kl"}
    works = claims.Claim(**about, variant="usual", against="untrained", expected="more")
    spoils = claims.Claim(**about, variant="other", measure="preserved", expected="less")
    first, second = claims.judged([works, spoils], {"kl": found})
    assert (first["at"], first["entry"]["gain"], first["verdict"]) == (
        "step 10, with the untrained editor",
        0.1,
        "agrees",
    )
    assert (second["at"], second["entry"]["more"], second["verdict"]) == ("step 10, with usual", -0.25, "agrees")
    grid = {"title": "T", "about": "", "items": 1, "split": "heldout"}
    made = {"command": "c", "date": "d", "commit": "e", "machine": "m", "versions": {}}
    page = claims.page([works, spoils], {"kl": {**found, "grid": grid, "made": made}})
    assert "| step 10, with the untrained editor | +0.100 [+0.090, +0.110] | agrees |" in page
    assert "| step 10, with usual | −0.250 [−0.260, −0.240] (`preserved`) | agrees |" in page


def test_a_claim_whose_grid_was_not_run_says_so_and_has_no_figure(claims: ModuleType) -> None:
    claim = claims.Claim(claim="It helps.", source="somebody", grid="kl", variant="kl_0", expected="more")
    assert [each["verdict"] for each in claims.judged([claim], {})] == ["not run"]
    page = claims.page([claim], {})
    assert "| It helps. | somebody | kl | – | – | not run |" in page


def test_figures_of_another_grid_and_missing_ones_are_refused(claims: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing; write it by: editr1 ablate"):
        claims.add("kl", tmp_path, tmp_path)
    (tmp_path / "ablation.json").write_text(json.dumps({"grid": {"title": "Another"}, "variants": {}}))
    with pytest.raises(UserError, match="holds 'Another'"):
        claims.add("kl", tmp_path, tmp_path)


def test_what_is_added_holds_the_figures_and_how_they_were_made(claims: ModuleType, tmp_path: Path) -> None:
    title = yaml.safe_load((BENCHMARKS / "grids" / "kl.yaml").read_text())["title"]
    found = {"grid": {"title": title, "seeds": 3}, **ablation(usual={10: (0.1, 0.1)})}
    (tmp_path / "ablation.json").write_text(json.dumps(found))
    kept = json.loads(claims.add("kl", tmp_path, tmp_path / "kept").read_text())
    assert {key: kept[key] for key in found} == found
    assert kept["made"]["command"].startswith("editr1 ablate benchmarks/grids/kl.yaml")
    assert {"torch", "diffusers"} <= {*kept["made"]["versions"]}
    assert kept["made"]["runs"] == []
