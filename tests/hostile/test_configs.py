"""Hostile configs: YAML that is none, that means too much, and values that only torch or numpy would refuse."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from editr1.config.loading import load_config
from editr1.devices import pick_device
from editr1.judges.open import parse_judge
from editr1.judges.prompts import load_prompt
from tests.hostile.harness import Case, Judged

BASE = "editor: {path: toy}\njudge: {path: toy}\ndata: {kind: toy}\n"
BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 10)}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)
BROKEN = {
    "a date that is none": "seed: 2024-13-45",
    "a number of 5,000 digits": f"seed: {5000 * '9'}",
    "3,000 brackets": f"a: {3000 * '['}",
    "30,000 closed brackets": f"a: {30_000 * '['}{30_000 * ']'}",
    "an alias bomb": BOMB,
    "an alias of itself": "a: &a [*a]",
    "an alias to nothing": "a: *b",
    "a tag of Python": "a: !!python/object/apply:os.system ['true']",
    "a key twice": "steps: 3\nsteps: 4",
    "a section twice": "optim: {lr: 1}\noptim: {lr: 2}",
    "a key twice in a section": "optim: {lr: 1, lr: 2}",
    "a key that is a list": "? [1, 2]\n: 3",
    "a key that is a number": "3: 4",
    "a tab": "optim:\n\tlr: 1",
    "two documents": "a: 1\n---\nb: 2",
    "a NUL": "a: '\0'",
    "control characters": "a: '\x07\x1b'",
    "a lone surrogate": 'out: "\\ud800"',
    "an endless key": f"{'k' * 10_000}: 1",
    "binary": "a: !!binary ====",
    "a timestamp as a section": "optim: 2024-01-01",
    "a set": "a: !!set {x, y}",
    "an omap": "a: !!omap [x: 1]",
    "five million characters": "x" * 5_000_000,
    "nothing": "",
    "a merge of nothing": "<<: 3",
}
VALUES = (
    ("steps", "yes", "on", "true", "1e9", "10000000000", "0x", "1_0_0_x", "[1]", "{a: 1}", "null", "''", "-0", "inf"),
    ("seed", "-1", "9223372036854775808", "1.5", "yes", f"{400 * '9'}"),
    ("ema", "1", "-0.1", "nan", "yes", "1e400"),
    ("keep", "0", "no"),
    ("save_every", "0", "off"),
    ("optim", "[1]", "3", "{lr: yes}", "{lr: true}", "{betas: [1, 1]}", "{betas: [yes, no]}", "{betas: [0.9]}"),
    ("optim", "{betas: [-0.1, 0.9]}", "{lr: .inf}", "{lr: -.nan}", "{grad_clip: 0}", "{micro_batch: 1000000000}"),
    ("adapter", "{rank: 100000000}", "{rank: yes}", "{targets: []}", "{targets: ['']}", "{targets: 3}", "{mode: x}"),
    ("adapter", "{alpha: .inf}", "{alpha: 1e300}", "{init: 3}"),
    ("rollout", "{group_size: 1}", "{group_size: 1000000000}", "{groups_per_step: 100000000000}", "{steps: 100000}"),
    ("parallel", "{timeout: 1e20}", "{timeout: yes}", "{shard: 0}", "{shard: true}", "{context: 0}"),
    ("failures", "{share: 2}", "{steps: no}"),
    ("algorithm", "{kl: yes}", "{name: [1]}", "{name: {a: 1}}", "{name: 3}", "{beta: on}", "[]", "{tau_mu: .nan}"),
    ("algorithm", "{kl_share: 0}", "{kl_share: 1.1}", "{informative: 0}", "{informative: .nan}", "{stratified: 2}"),
    ("rewards", "{judge: {kind: preservation}}", "{a: {kind: [1]}}", "{a: 3}", "[1]", "{a: {kind: function}}"),
    ("rewards", "{a: {kind: preservation, weight: -1}}", "{a: {kind: preservation, weight: 1e300}}"),
    ("evaluation", "{split: 0}", "{split: yes}", "{split: 3, data: x}", "{split: 1.5}", "3"),
    ("memory", "{compile: 3}", "{cache: [x]}", "{quantize: int4}"),
    ("out", "[x]", "3", "{a: b}"),
)
EDITORS = ("{path: 3}", "{path: toy, pixels: 100000000000000000000}", "{path: toy, pixels: yes}", "{path: [toy]}")
JUDGES = (
    "{path: toy, criteria: {overall: -1}}",
    "{path: toy, criteria: {overall: 0}}",
    "{path: toy, criteria: {overall: 1e300}}",
    "{path: toy, criteria: {}}",
    "{path: toy, scale: [0, 1000000000]}",
    "{path: toy, scale: [5, 0]}",
    "{path: toy, scale: [no, yes]}",
    "{path: toy, in_flight: 100000000}",
    "{path: toy, timeout: 1e30}",
    "{path: toy, jpeg_quality: 101}",
    "{path: toy, endpoints: [x]}",
    "{endpoints: x}",
)
DEVICES = ("meta", "mps", "cuda", "cuda:99", "cuda:x", "gpu", "", "cpu:-1", "cuda:99999999999999999999", "\0")
TEMPLATE = "version: x\nopening: '{instruction%s}'\nsource: a\nedit: b\ncriteria: {overall: c}\nquestions: {score: d}\n"


def load(text: str, folder: Path) -> None:
    (folder / "run.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")
    load_config(folder / "run.yaml")


def device_of(name: str, folder: Path) -> None:
    pick_device(name)


def judge_of(text: str, folder: Path) -> None:
    parse_judge(text)


def template_of(text: str, folder: Path) -> None:
    (folder / "words.yaml").write_text(text)
    load_prompt("words.yaml", "paper")


CASES = [
    *(Case(name, partial(load, text)) for name, text in BROKEN.items()),
    *(Case(f"{k}: {v[:60]}", partial(load, f"{BASE}{k}: {v}\n")) for k, *values in VALUES for v in values),
    *(Case(f"editor: {e}", partial(load, BASE.replace("editor: {path: toy}", f"editor: {e}"))) for e in EDITORS),
    *(Case(f"judge: {j}", partial(load, BASE.replace("judge: {path: toy}", f"judge: {j}"))) for j in JUDGES),
    *(Case(f"device {name[:20]!r}", partial(device_of, name)) for name in DEVICES),
    *(Case(f"--judge {t}", partial(judge_of, t)) for t in ("toy?method=[", "toy?samples=yes", "x.yaml", "toy?scale=3")),
    *(Case(f"a template with {s!r}", partial(template_of, TEMPLATE % s)) for s in (":>1000000000", "!r", ".x", "[0]")),
    Case("bytes that are no text", lambda folder: load_config(_bytes(folder))),
    Case("a folder", lambda folder: load_config(folder)),
    Case("a name with a NUL", lambda folder: load_config("a\0b")),
    Case("a BOM", partial(load, "\ufeff" + BASE), expects="clean"),
    Case("an anchor used once", partial(load, BASE + "optim: &o {lr: 1e-4}\n"), expects="clean"),
]


def _bytes(folder: Path) -> Path:
    path = folder / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    return path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_config_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)


def test_a_path_of_the_home_folder_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "run.yaml").write_text(BASE + "out: ~/runs/a\n")
    config = load_config(tmp_path / "run.yaml", ["editor.path=~/editors/mine", "memory.cache=~/cache"])
    assert (str(config.out), config.editor.path) == ("/home/me/runs/a", "/home/me/editors/mine")
    assert str(config.memory.cache) == "/home/me/cache"
