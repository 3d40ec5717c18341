from __future__ import annotations

import pytest

from farcast.origin.studio.language import language_tag, stream_language


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("en", "en"), ("ENG", "en"), ("ger", "de"), ("deu", "de"), ("pt-br", "pt-BR"),
        ("ZH-hant-tw", "zh-Hant-TW"), ("gsw", "gsw"), ("es-419", "es-419"), ("sl-rozaj", "sl-rozaj"),
    ],
)  # fmt: skip
def test_a_tag_is_written_the_short_way(text: str, tag: str) -> None:
    assert language_tag(text) == tag
    assert language_tag(tag) == tag


@pytest.mark.parametrize("text", ["", "xx", "english", "e", "en_US", "en-", 'en"x', "12"])
def test_what_names_no_language_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no language"):
        language_tag(text)
    assert stream_language(text) == ""


def test_a_stream_that_says_nothing_of_use_has_no_language() -> None:
    assert [stream_language(text) for text in ("und", "mul", "zxx", "fre")] == ["", "", "", "fr"]
