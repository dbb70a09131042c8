"""What differs between results besides their scores: the judge, whose edits they are, and how these were made.

Other weights are what a comparison is about; any other difference may be the cause of a change, and is named as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from editr1.evaluation.benchmarks.edits import with_lora_scale
from editr1.evaluation.benchmarks.published import Published, Sampling
from editr1.evaluation.benchmarks.results import Result
from editr1.preservation.measure import FEATURES, NAMES

ASKED = ("judge", "asked", "prompts", "judge_settings")  # what must be equal for numbers to be comparable
WEIGHTS = ("editor", "editor_crc32", "lora", "lora_crc32", "lora_scale")
MASKED = {"masks": NAMES, FEATURES: (FEATURES,)}
"""What must be equal for what is kept outside of masks to be comparable: the measures that it is of."""
DATA = ("data", "data_crc32", "items", "level")
USED = ("prompt_tokens", "completion_tokens")  # what a run cost; no setting
EXPECTED: dict[str, Any] = {"scheduler": "euler", "best_of": 1, "pixels": None}
"""Of edits beside published rows, with `Sampling`."""

Values = Mapping[str, Any]  # by name of the result


def differences(results: Mapping[str, Result]) -> dict[str, Values]:
    """The settings that are not equal in all results, with their values; "unknown" where an older result has none.

    A checksum is left out if the name of its file differs anyway.
    """
    records = {name: with_lora_scale(result.made_with) for name, result in results.items()}
    settings = dict.fromkeys(key for record in records.values() for key in record if key not in USED)
    values = {key: {name: record.get(key, "unknown") for name, record in records.items()} for key in settings}
    first = next(iter(results))
    other = {key: both for key, both in values.items() if any(value != both[first] for value in both.values())}
    return {key: both for key, both in other.items() if not (key.endswith("_crc32") and key[: -len("_crc32")] in other)}


def notes(results: Mapping[str, Result], papers: Published | None) -> Iterator[str]:
    """In words for people: differences of the judge, the weights, the data, the edits, and from the published rows.

    Where results do not share what is kept outside of masks, it does not matter which masks they are.
    """
    other = sorted(differences(results).items(), key=lambda item: (item[0] not in ASKED, item[0] not in WEIGHTS))
    metrics = next(iter(results.values())).metrics
    for key, values in other:
        if key in MASKED and not set(MASKED[key]) & set(metrics):
            continue
        masks = [{row.key: row.mask for row in result.items if row.mask} for result in results.values()]
        if key == "masks" and all(masks):  # a result of an earlier version has none by item
            yield from _mask_notes(*masks)
            continue
        yield _note(key, ", ".join(f"{name}: {_word(value)}" for name, value in values.items()))
    keys = [{row.key for row in result.items} for result in results.values()]
    if any(items != keys[0] for items in keys):
        yield "The results are not of the same items; differences are of those that both have."
    if papers is not None:
        yield from _published_notes(results, papers)


def _mask_notes(first: Mapping[str, str], *others: Mapping[str, str]) -> Iterator[str]:
    """Of the masks' digests by item: those of items that the first result shares with another must be equal."""
    shared = [key for key in first if any(key in masks for masks in others)]
    if other := [key for key in shared if any(masks.get(key, first[key]) != first[key] for masks in others)]:
        what = f"What is kept outside of masks ({', '.join(MASKED['masks'])}) is not comparable"
        yield f"{what}, masks differs for {len(other)} of {len(shared)} shared items, such as {other[0]}."


def _note(key: str, words: str) -> str:
    if key in ASKED:
        return f"Not comparable with each other, {key} differs ({words})."
    if key in MASKED:
        return f"What is kept outside of masks ({', '.join(MASKED[key])}) is not comparable, {key} differs ({words})."
    if key in WEIGHTS:
        return f"What is compared: {key} differs ({words})."
    if key in DATA:
        return f"Not of the same data: {key} differs ({words})."
    return f"The edits were made differently, {key} differs ({words}): this may be the cause of a change."


def _published_notes(results: Mapping[str, Result], papers: Published) -> Iterator[str]:
    """Who judged the published rows and how their edits were made, and what is otherwise here."""
    for name, result in results.items():
        if other := _unlike(result.made_with, papers.sampling):
            yield f"{name} is not sampled as the published rows are: {', '.join(other)}."
    judges = sorted({str(result.made_with.get("judge")) for result in results.values()})
    prompts = sorted({str(result.made_with.get("prompts")) for result in results.values()})
    yield (
        f"Published rows were judged by {papers.judge} with the official prompts ({papers.source}); compare with "
        f"them only what was judged alike. Here: {', '.join(judges)}, prompts: {', '.join(prompts)}."
    )
    here = "; ".join(
        f"{name}: {made.get('steps')} steps, guidance {made.get('guidance')}, best of {made.get('best_of')}"
        for name, made in ((name, result.made_with) for name, result in results.items())
    )
    yield f"The released scripts make the edits of published rows with {papers.sampling}. Here: {here}."


def _unlike(made_with: Mapping[str, Any], sampling: Sampling) -> list[str]:
    """The settings of a result that differ from the published ones; guidance only if the editor's is known."""
    expected = {"steps": sampling.steps, **EXPECTED}
    if (guidance := sampling.guidance_of(str(made_with.get("editor")))) is not None:
        expected["guidance"] = guidance
    return [
        f"{key} {_word(made_with[key])} instead of {_word(value)}"
        for key, value in expected.items()
        if key in made_with and made_with[key] != value
    ]


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
