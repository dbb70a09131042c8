"""Functions of a user's own as rewards: whatever their module does, and values that are no reward."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from editr1.config.rewards import FunctionConfig
from editr1.data.samples import EditSample
from editr1.errors import UserError
from editr1.judges.base import JudgeRequest
from editr1.judges.check import check_reward
from editr1.judges.rewards.function import FunctionReward
from tests.hostile.harness import Case, Judged

PICTURE = Image.new("RGB", (8, 8), "red")
REQUESTS = [JudgeRequest(EditSample("k", PICTURE, "go"), PICTURE)]
MODULES = {
    "a syntax error": "\n\ndef reward(:\n",
    "a tab among spaces": "def reward(*a):\n    x = 1\n\treturn x\n",
    "a NUL": "a = 1\0\n",
    "bytes that are no text": "a = '\udcff'\n",
    "another encoding": "# coding: nonsense\n",
    "a module that is not there": "\nimport nowhere_at_all\n",
    "a name that is not there": "from os import nothing_here\n",
    "an exception": "raise ValueError('first\\nsecond')\n",
    "an exception without words": "raise RuntimeError\n",
    "sys.exit": "import sys\nsys.exit()\n",
    "sys.exit with words": "import sys\nsys.exit('bye\\x1b[31m')\n",
    "exit code 0": "raise SystemExit(0)\n",
    "endless recursion": "def f():\n    f()\nf()\n",
    "a cancellation": "import asyncio\nraise asyncio.CancelledError\n",
    "an end of its own": "class End(BaseException): ...\nraise End('over')\n",
    "a generator's end": "raise GeneratorExit\n",
    "an assertion": "assert not 'words'\n",
    "no function": "reward = 3\n",
    "nothing": "",
    "an import of itself": "from own import reward\n",
    "a failing __getattr__": "def __getattr__(name):\n    raise SystemExit(name)\n",
    "deep brackets": "a = " + 1000 * "(" + 1000 * ")" + "\n",
}
NAMES = ("own", "own:", ":reward", "own:a:b", "own.py:reward", "../own:reward", "own/x:reward", "", ":", "own:reward\n")
CALLS = {
    "sys.exit": "__import__('sys').exit('bye')",
    "SystemExit": "exec('raise SystemExit(0)')",
    "a cancellation": "exec('import asyncio; raise asyncio.CancelledError')",
    "an end of its own": "exec('class End(BaseException): ...\\nraise End(9)')",
    "a generator's end": "exec('raise GeneratorExit')",
}
FAULTS = {
    **CALLS,
    "an exception": "{}['colour']",
    "endless recursion": "reward(*a)",
    "a text": "'0.5'",
    "a text of a terminal": "'\\x1b[31m\\n'",
    "NaN": "float('nan')",
    "400 digits": "10**400",
    "a complex number": "0.5j",
    "a list": "[0.5]",
    "seven": "7",
    "true": "True",
    "a picture": "a[0]",
    "no memory": "exec('raise MemoryError')",
}


def write(text: str, folder: Path) -> None:
    (folder / "own.py").write_bytes(text.encode(errors="surrogateescape"))


def loaded(text: str, folder: Path) -> None:
    """The line names the function, and the file and line of the fault if the file has any."""
    write(text, folder)
    try:
        FunctionReward("own:reward")
    except UserError as error:
        assert "'own:reward'" in str(error)
        place = r"\(own\.py:\d+\)|has no attribute|not a function|cannot import|null bytes|encoding"
        assert re.search(place, str(error)), error
        raise


def called(name: str, folder: Path) -> None:
    write("def reward(*a): return 0.5\n", folder)
    FunctionReward(name)


def checked(value: str, folder: Path) -> None:
    """At the start it is one fault."""
    write(f"def reward(*a):\n    return {value}\n", folder)
    (fault,) = check_reward(FunctionConfig(path="own:reward"), REQUESTS)
    assert "own:reward" in fault
    raise UserError(fault)


def missing(value: str, folder: Path) -> None:
    """In a call it is no end of the run, but a missing reward with its reason, and its place."""
    write(f"def reward(*a):\n    return {value}\n", folder)
    (score,) = FunctionReward("own:reward").score(REQUESTS)
    assert score.value is None and score.reason is not None
    assert re.match(r"own:reward raises \w+: .* \(", score.reason), score.reason


def of_c(name: str, folder: Path) -> None:
    FunctionReward(name)


CASES = (
    *(Case(f"a module with {name}", partial(loaded, text)) for name, text in MODULES.items()),
    *(Case(f"the name {name!r}", partial(called, name)) for name in NAMES),
    *(Case(f"at the start: {name}", partial(checked, value)) for name, value in FAULTS.items()),
    *(Case(f"in a call: {name}", partial(missing, value), "clean") for name, value in CALLS.items()),
    *(Case(f"a function of C: {name}", partial(of_c, name), "clean") for name in ("builtins:dict", "math:hypot")),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_function_of_a_user_breaks_it(case: Case, judged: Judged) -> None:
    judged(case)
