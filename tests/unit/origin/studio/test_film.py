from __future__ import annotations

from pathlib import Path

import pytest

from farcast.origin.studio.film import load_film, slug
from farcast.protocol.errors import UsageError
from farcast.protocol.manifest import Payee, Window

WHOLE = """
title = "the-long-way"
name = "The Long Way"
description = "Two lines\\nof it."
language = "pt-BR"
access = "open"
territories = ["DE", "AT"]

[window]
from = 2026-12-01T20:00:00Z
until = 2027-12-01

[[payees]]
payee = "studio.one"
points = 7000

[[payees]]
payee = "anna"
points = 3000
"""


@pytest.fixture
def media(tmp_path: Path) -> Path:
    path = tmp_path / "My Film (2026).mp4"
    path.write_bytes(b"")
    return path


def write(media: Path, text: str) -> Path:
    path = media.with_name("film.toml")
    path.write_text(text)
    return path


def test_a_whole_film_toml_is_understood(media: Path) -> None:
    write(media, WHOLE)
    film = load_film(media)
    assert film.title == "the-long-way"
    assert film.name == "The Long Way"
    assert film.description == "Two lines\nof it."
    assert film.language == "pt-BR"
    assert film.territories == ("AT", "DE")
    assert film.window == Window(from_ms=1_796_155_200_000, until_ms=1_827_619_200_000)
    assert film.payees == (Payee(payee="studio.one", points=7000), Payee(payee="anna", points=3000))


def test_without_a_file_the_name_is_the_medias_and_the_callers_payee_gets_all(media: Path) -> None:
    film = load_film(media, payee="anna")
    assert (film.title, film.name) == ("my-film-2026", "My Film (2026)")
    assert film.payees == (Payee(payee="anna", points=10_000),)


def test_the_title_of_the_command_line_wins_over_the_files_id_but_not_over_its_name(media: Path) -> None:
    assert load_film(media, title="Sea & Sky", payee="anna").name == "Sea & Sky"
    write(media, WHOLE)
    film = load_film(media, title="Sea & Sky")
    assert (film.title, film.name) == ("sea-sky", "The Long Way")


def test_a_title_on_the_command_line_must_be_a_name(media: Path) -> None:
    with pytest.raises(UsageError, match="the title has 401 characters"):
        load_film(media, title="x" * 401, payee="anna")
    with pytest.raises(UsageError, match="the title must be text, and not empty"):
        load_film(media, title=" ", payee="anna")


def test_a_file_name_that_is_not_text_still_names_a_film(tmp_path: Path) -> None:
    media = tmp_path / "caf\udce9 one.mp4"
    film = load_film(media, payee="anna")
    assert (film.title, film.name) == ("caf-one", "caf? one")


def test_a_file_named_after_the_media_comes_before_film_toml(media: Path) -> None:
    write(media, 'name = "other"')
    media.with_suffix(".toml").write_text('name = "mine"')
    assert load_film(media, payee="anna").name == "mine"


def test_nobody_to_pay_is_an_error_that_names_the_file_to_write(media: Path) -> None:
    with pytest.raises(UsageError, match=r"\[\[payees\]\] into .*film\.toml"):
        load_film(media)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('titel = "x"', r"unknown key titel; did you mean 'title'\?"),
        ("zzz = 1", "unknown key zzz; known keys: access, audio, description"),
        ('name = ""', "name must be text, and not empty"),
        ("name = 7", "name must be text"),
        ('name = "a\\u0007b"', "name must not contain control characters"),
        (f'name = "{"x" * 401}"', "name has 401 characters, at most 400"),
        ('title = "Big Film"', "title is 'Big Film', but must be small letters"),
        ('language = "en\\"x"', "language is .* names no language"),
        ('access = "secret"', "access is 'secret', but must be 'open' or 'ticket'"),
        ('territories = ["Germany"]', "territories is 'Germany', but must be a country code"),
        ("window = 5", "window must be a table"),
        ("[window]\nfrom = 2026-01-01T00:00:00", "window.from needs a time zone"),
        ("[window]\nfrom = 2026-01-02\nuntil = 2026-01-01", "window ends before it begins"),
        ("[window]\nform = 2026-01-02", r"unknown key window.form; did you mean 'from'\?"),
        ("[window]\nfrom = 1960-01-02", "window.from is before 1970"),
        ("payees = []", "payees must be tables"),
        ('[[payees]]\npayee = "a"\npoints = 9999', "payees must have points that sum to 10000, but .* 9999"),
        ('[[payees]]\npayee = "a"\npoints = 5000\n' * 2, "payees names somebody twice"),
        ('[[payees]]\npayee = "a"\npoints = 1.5', "payees.points is 1.5, but must be a whole number"),
        ('[[payees]]\npayee = "a"\npoints = true', "payees.points is True, but must be a whole number"),
        ('[[payees]]\npayee = "a"', "payees.points is missing"),
        ('[[payees]]\npayee = "a"\npoint = 10000', "payees.points is missing"),
        ('[[payees]]\npayee = "a"\npoints = 10000\nshare = 1', "unknown key payees.share"),
        ("name = ", "is not TOML"),
    ],
)
def test_a_mistake_is_named_with_file_key_and_reason(media: Path, text: str, sentence: str) -> None:
    path = write(media, text)
    with pytest.raises(UsageError, match=sentence) as caught:
        load_film(media, payee="anna")
    assert str(path) in str(caught.value)


def test_a_film_toml_that_is_not_text_or_too_long_is_refused(media: Path) -> None:
    path = write(media, "")
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_film(media, payee="anna")
    path.write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(UsageError, match="too long"):
        load_film(media, payee="anna")


@pytest.mark.parametrize(
    ("name", "title"),
    [("Édith & Zoé!", "edith-zoe"), ("--x--", "x"), ("a" * 80, "a" * 63), ("\u7535\u5f71", "title-03a3a327")],
)
def test_every_name_has_a_title_id(name: str, title: str) -> None:
    assert slug(name) == title
