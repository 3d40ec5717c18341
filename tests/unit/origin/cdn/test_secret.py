"""A CDN's key is read from its owner's file or the environment, and shown to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from farcast.origin.cdn.secret import Secret, read_secret
from farcast.protocol.errors import UsageError


def test_a_file_of_mode_600_and_a_variable_are_read(tmp_path: Path) -> None:
    path = tmp_path / "bunny.key"
    path.write_text("0d7f-key\n")
    path.chmod(0o600)
    assert read_secret(str(path), {}).reveal() == "0d7f-key"
    assert read_secret("$BUNNY_KEY", {"BUNNY_KEY": "0d7f-key"}) == Secret("0d7f-key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o601])
def test_a_file_that_others_can_read_is_refused_with_its_mend(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "bunny.key"
    path.write_text("0d7f-key\n")
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        read_secret(str(path), {})
    assert str(caught.value) == f"{path} can be read by others (mode {mode:o}); run `chmod 600 {path}`"


@pytest.mark.parametrize("text", ["", "\n", "a\nb", "a\rb", "ä", "k" * 1_025])
def test_what_is_no_line_of_ascii_is_no_key_and_is_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bunny.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="holds no key") as caught:
        read_secret(str(path), {})
    assert str(path) in str(caught.value)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_secret(str(tmp_path / "none"), {})
    with pytest.raises(UsageError, match="the variable CDN_KEY is not set"):
        read_secret("$CDN_KEY", {})


def test_a_key_prints_as_nothing() -> None:
    secret = Secret("0d7f-key")
    assert "0d7f" not in f"{secret} {secret!r} {[secret]} {secret!s}"
