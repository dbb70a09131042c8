"""The four published layouts, on small files in their official form."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from editr1.data.columns import Opener
from editr1.errors import UserError
from editr1.evaluation.agreement.layouts import read_pairs
from tests.evaluation.agreement.cases import grey

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def stored(level: int) -> dict[str, Any]:
    buffer = io.BytesIO()
    grey(level).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": f"{level}.png"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)
    return path


def level(opener: Opener) -> int:
    return int(opener().getpixel((0, 0))[0])  # type: ignore[index]


def editscore_row(i: int, dimension: str = "overall") -> dict[str, Any]:
    return {
        "key": [f"m{i}", f"n{i}"],
        "instruction": f"Do {i}.",
        "input_image": stored(10),
        "output_images": [stored(200 + i), stored(100 + i)],
        "task_type": "extract" if i % 2 else "style_change",
        "dimension": dimension,
    }


def test_editscore_keeps_the_preferred_edit_and_shuffles_the_sides(tmp_path: Path) -> None:
    write(tmp_path / "data/train-00000-of-00001.parquet", [editscore_row(i) for i in range(30)])
    pairs = read_pairs(tmp_path)
    assert len(pairs) == 30 and {pair.layout for pair in pairs} == {"editscore"}
    for i, pair in enumerate(pairs):
        sides = {"a": level(pair.edit_a), "b": level(pair.edit_b)}
        assert sides == {pair.preference: 200 + i, "ab".replace(pair.preference, ""): 100 + i}
        assert (pair.task, pair.dimension, level(pair.source)) == (editscore_row(i)["task_type"], "overall", 10)
    assert 8 <= sum(pair.preference == "a" for pair in pairs) <= 22
    assert [p.preference for p in read_pairs(tmp_path)] == [p.preference for p in pairs]


def tiger_row(name: str, ranking: str, **more: Any) -> dict[str, Any]:
    size = more.pop("dataset", "2pair")
    pictures = {"source_image": stored(1), "candidate_1": stored(2), "candidate_2": stored(3)}
    scores = {"score_1": 3.5, "score_2": 2.0, "comparison_type": "pair"}
    return {"id": name, "instruction": "Do.", "dataset": size, "ranking": ranking, **pictures, **scores, **more}


def test_tiger_reads_rankings_by_the_letters_of_the_pair_and_groups_by_id(tmp_path: Path) -> None:
    rankings = ["A>B", "B>A", "A=B", "A=B=Good", "A<B", "B>C", "C>B", "A>D", "D>A"]
    rows = [tiger_row(f"7_{i}", ranking, dataset="4pair") for i, ranking in enumerate(rankings)]
    pairs = read_pairs(write(tmp_path / "t.parquet", rows))
    assert [pair.preference for pair in pairs] == ["a", "b", "tie", "tie", "b", "a", "b", "a", "b"]
    assert {pair.group for pair in pairs} == {"4pair/7"}
    assert (pairs[0].score_a, pairs[0].score_b) == (3.5, 2.0)
    assert [level(opener) for opener in (pairs[8].source, pairs[8].edit_a, pairs[8].edit_b)] == [1, 2, 3]


def test_tiger_drops_repeated_rows_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [tiger_row("1_0", ranking, model_1="x", model_2=other) for ranking, other in (("A>B", "y"), ("B>A", "y"))]
    rows.append(tiger_row("1_0", "A>B", model_1="x", model_2="z"))
    with caplog.at_level(logging.WARNING):
        pairs = read_pairs(write(tmp_path / "t.parquet", rows))
    assert [pair.preference for pair in pairs] == ["a", "a"]
    assert "1 rows repeat" in caplog.text


def test_genai_reads_the_four_votes_of_test_v1_alone(tmp_path: Path) -> None:
    def row(vote: str) -> dict[str, Any]:
        pictures = {"source_image": stored(1), "left_output_image": stored(2), "right_output_image": stored(3)}
        words = {"source_prompt": "a", "target_prompt": "b", "instruct_prompt": "Do.", "vote_type": vote}
        return {**words, **pictures, "left_model": "x", "right_model": "y"}

    write(tmp_path / "image_edition/test-00000.parquet", [row("leftvote")])
    write(tmp_path / "image_generation/test_v1-00000.parquet", [{"prompt": "x", "vote_type": "leftvote"}])
    votes = ["leftvote", "rightvote", "tievote", "bothbad_vote"]
    write(tmp_path / "image_edition/test_v1-00000.parquet", [row(vote) for vote in votes])
    pairs = read_pairs(tmp_path)
    assert [(p.preference, p.both_bad) for p in pairs] == [("a", False), ("b", False), ("tie", False), ("tie", True)]
    with pytest.raises(UserError, match="vote_type 'left'"):
        read_pairs(write(tmp_path / "bad.parquet", [row("left")]))


def compass_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    for shade in (1, 2, 3):
        grey(shade).save(folder / f"{shade}.png")
    file = folder / "compass.json"
    file.write_text(json.dumps(rows))
    return file


def test_compass_reads_json_with_paths_beside_it(tmp_path: Path) -> None:
    row = {"dimension": "IA", "source_image": "1.png", "prompt": "Do.", "winner": "2.png", "loser": "3.png"}
    rows = [
        {**row, "label": "preference" if i < 20 else "tie", "dimension": "VQ" if i % 2 else "IA"} for i in range(24)
    ]
    pairs = read_pairs(compass_file(tmp_path, rows))
    assert len({p.preference for p in pairs[:20]}) == 2 and {p.preference for p in pairs[20:]} == {"tie"}
    assert all(level(p.edit_a if p.preference == "a" else p.edit_b) == 2 for p in pairs[:20])
    assert [p.dimension for p in pairs[:2]] == ["IA", "VQ"]
    for wrong, words in (({"winner": "../x.png"}, "outside"), ({"label": "win"}, "label"), ({"prompt": ""}, "prompt")):
        with pytest.raises(UserError, match=f"pair 1.*{words}"):
            read_pairs(compass_file(tmp_path, [{**row, "label": "tie", **wrong}]))


def test_unknown_layout_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its columns are x, y.*editscore.*tiger.*genai.*compass.*jsonl"):
        read_pairs(write(tmp_path / "u.parquet", [{"x": 1, "y": 2}]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no layout that is known"):
        read_pairs(tmp_path / "empty")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="cannot read"):
        read_pairs(tmp_path / "broken.parquet")


def test_two_layouts_in_one_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [editscore_row(0)])
    write(tmp_path / "b.parquet", [tiger_row("1_0", "A>B")])
    with pytest.raises(UserError, match="several layouts"):
        read_pairs(tmp_path)
