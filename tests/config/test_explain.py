from collections.abc import Iterator

import pytest
import yaml
from pydantic import BaseModel

from editr1.algorithms.base import find_algorithms
from editr1.config.explain import Setting, explain, meaning
from editr1.config.loading import known_keys, load_config
from editr1.config.presets import presets, read_preset
from editr1.config.rewards import KINDS
from editr1.config.section import Section
from editr1.config.settings import Config

ALL = [
    "evaluation.split=0.1",
    "watch.judge.path=toy:judge",
    "preservation.masks=data",
    "rewards.kept.kind=preservation",
    "rewards.words.kind=ocr",
]


def settings(name: str, *overrides: str) -> dict[str, Setting]:
    return {row.key: row for part in explain(load_config(name, overrides)) for row in part.settings}


def sections(kind: type[BaseModel] = Section) -> Iterator[type[BaseModel]]:
    """Every class of settings, whatever the package's parts are."""
    for below in kind.__subclasses__():
        yield from (below, *sections(below))


EVERY = sorted({*sections(), *find_algorithms().values(), *KINDS.values()}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_every_setting_has_a_meaning_and_every_section_says_what_it_is(kind: type[BaseModel]) -> None:
    assert "Config" in {each.__name__ for each in EVERY} and len(EVERY) > 20
    undocumented = [name for name, field in kind.model_fields.items() if not meaning(field) and not is_section(field)]
    assert undocumented == []
    assert kind.__doc__ or kind.__name__.startswith("_")


def is_section(field: object) -> bool:
    """Whether a setting holds one section, whose class says what it is."""
    annotation = getattr(field, "annotation", None)
    return isinstance(annotation, type) and issubclass(annotation, Section)


@pytest.mark.parametrize("name", presets())
def test_what_a_preset_says_is_shown_as_it_stands_there_and_all_else_is_the_default(name: str) -> None:
    shown = settings(name)
    said = {
        f"{section}.{key}" if isinstance(values, dict) else section: value
        for section, values in yaml.safe_load(read_preset(name)).items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    }
    assert {key: shown[key].value for key in said} == said
    assert {key for key, row in shown.items() if row.changed} <= said.keys()
    assert all(row.value == row.default for key, row in shown.items() if key not in said)


def test_every_key_that_a_run_may_have_is_shown_once() -> None:
    rows = [row.key for part in explain(load_config("toy", ALL)) for row in part.settings]
    known = {key for key in known_keys(algorithm="nft") if key in rows or not known_below(key)}
    assert len(rows) == len(set(rows))
    assert known == {key for key in rows if not key.startswith("rewards.")} | {"rewards"}
    own = {"kept": ("masks", "whole_tasks"), "words": ()}
    assert {key for key in rows if key.startswith("rewards.")} == {
        f"rewards.{name}.{key}"
        for name, more in own.items()
        for key in ("kind", "weight", "weight_by_task", "optional", *more)
    }


def known_below(key: str) -> bool:
    return any(other.startswith(f"{key}.") for other in known_keys())


def test_values_and_defaults_are_those_of_the_classes() -> None:
    shown = settings("toy", *ALL, "optim.lr=0.5", "adapter.init=~/a", "algorithm.name=awm")
    assert (shown["optim.lr"].value, shown["optim.lr"].default, shown["optim.lr"].changed) == (0.5, 3e-4, True)
    assert (shown["optim.betas"].value, shown["optim.betas"].changed) == ([0.9, 0.999], False)
    assert shown["data.path"].value is None and shown["out"].default == "runs/editr1"
    assert shown["editor.path"].required and shown["editor.path"].changed
    assert shown["judge.criteria"].default == {"overall": 1.0} == shown["judge.criteria"].value
    assert (shown["algorithm.name"].default, shown["algorithm.kl_old"].value) == ("awm", 1.0)
    assert shown["optim.lr"].meaning == "Constant learning rate."
    assert shown["algorithm.kl"].meaning.startswith("Weight of the distance to the untrained editor")


def test_parts_follow_the_classes_and_the_run_itself_comes_last() -> None:
    parts = [*explain(load_config("toy"))]
    names = [name for name in Config.model_fields if any(part.name == name for part in parts)]
    assert [part.name for part in parts] == [*names, "run"]
    assert {"judge", "editor", "memory"} <= {*names} and not {"evaluation", "rewards"} & {*names}
    assert {"evaluation", "rewards", "steps"} <= {row.key for row in parts[-1].settings}
    assert parts[0].about == "The editor to train."
