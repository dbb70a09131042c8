import pytest

from editr1.data.checking.scripts import script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Make it red.", "Latin"),
        ("Mache den Himmel größer, s'il vous plaît", "Latin"),
        ("Сделай небо красным", "Cyrillic"),
        ("把 SUV 换成 Mercedes-Benz 汽车", "CJK"),
        ("空を赤くする", "CJK"),
        ("하늘을 빨갛게", "Hangul"),
        ("اجعل السماء حمراء", "Arabic"),
        ("आकाश को लाल करो", "Devanagari"),
        ("Change the sign to “ПРИВЕТ МИР” now", "Latin"),
        ("Don't write '中文字样中文字样' on it", "Latin"),
        ("将「HELLO WORLD AGAIN」改掉", "CJK"),
        ("42 → 7 🙂", None),
        ("'all of it quoted'", None),
        ("", None),
    ],
)
def test_the_script_is_that_of_most_words_outside_of_quotes(text: str, script: str | None) -> None:
    assert script_of(text) == script
