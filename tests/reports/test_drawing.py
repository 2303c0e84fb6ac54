"""Words on their way into the page: safe whatever they are, numbers in one line, commands as code."""

from __future__ import annotations

from html import unescape

import pytest

from reports.drawing import prose, sentence, tight


def test_numbers_stay_in_one_line() -> None:
    assert tight("316 / 800 of 4.7 %") == "316\u202f/\u202f800 of 4.7\u202f%"
    assert tight("1 316 800 against 228 400, 30 samples") == "1\u202f316\u202f800 against 228\u202f400, 30 samples"
    assert tight("corrected p < 0.001, p = 1") == "corrected p\u00a0<\u00a00.001, p\u00a0=\u00a01"
    assert tight("FeRA / LoRA at 12 8192") == "FeRA / LoRA at 12 8192"


def test_commands_in_sentences_are_drawn_as_code() -> None:
    found = prose("6 pairs are not tested: `adapt report six.zarr --against lora` compares 4 %.")
    said = "6 pairs are not tested: <code>adapt report six.zarr --against lora</code> compares 4\u202f%."
    assert str(found) == said
    assert str(sentence("give its `adapt evaluate` again")) == "Give its <code>adapt evaluate</code> again"


@pytest.mark.parametrize("name", ["<script>x</script>", "a`b", "`b`", "</code><img src=x>", "&amp;", "\"'"])
def test_hostile_names_stay_text(name: str) -> None:
    drawn = str(prose(f"{name} differs: `adapt report x --against '{name}'` compares all."))
    begin, end = drawn.split("<code>")[0], drawn.split("</code>")[1]
    assert unescape(begin) == f"{name} differs: "
    assert unescape(drawn.removeprefix(begin + "<code>").removesuffix("</code>" + end)) == (
        f"adapt report x --against '{name}'"
    )
    assert unescape(end) == " compares all."
