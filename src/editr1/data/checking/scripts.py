"""In which script a text is written: a sign of its language that needs no model.

Languages of one script look alike here: a German instruction among English ones is not noticed.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from functools import lru_cache
from itertools import groupby

QUOTED = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»|„[^“”]*[“”]|「[^」]*」|『[^』]*』|(?<!\w)[‘'][^’']*[’'](?!\w)")
"""Words of a picture, such as those of a sign; they may be of any language."""
NAMES = {"HIRAGANA": "CJK", "KATAKANA": "CJK", "HALFWIDTH": "CJK", "FULLWIDTH": "LATIN"}


def script_of(text: str) -> str | None:
    """The script of most of its words outside quotation marks, such as "Latin" or "CJK"; None if it has none."""
    text = QUOTED.sub(" ", text)
    if text.isascii():
        return "Latin" if re.search("[a-zA-Z]", text) else None
    words: Counter[str] = Counter()
    for script, letters in groupby(text, _script):
        words[script] += sum(1 for _ in letters) if script == "CJK" else 1  # there, no space parts words
    del words[""]
    return words.most_common(1)[0][0] if words else None


@lru_cache(maxsize=2**14)
def _script(letter: str) -> str:
    """The first word of a letter's name in Unicode; "" if it is no letter."""
    if not letter.isalpha():
        return ""
    name = re.split("[ -]", unicodedata.name(letter, "unknown"))[0]
    name = NAMES.get(name, name)
    return name if name == "CJK" else name.capitalize()
