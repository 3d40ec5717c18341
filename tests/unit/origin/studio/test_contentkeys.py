from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from farcast.origin.studio.contentkeys import ContentKeys

SECRET = st.binary(min_size=32, max_size=32)
TITLE = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,20}\Z")
DIGEST = st.binary(min_size=32, max_size=32)


@given(SECRET, TITLE, DIGEST)
def test_the_same_film_has_the_same_key_again(secret: bytes, title: str, digest: bytes) -> None:
    first, again = ContentKeys(secret), ContentKeys(secret)
    key_id = first.key_id(title, digest)
    assert len(key_id) == len(first.key(key_id)) == 16
    assert (again.key_id(title, digest), again.key(key_id)) == (key_id, first.key(key_id))
    assert again.owns(key_id)


@given(SECRET, TITLE, DIGEST, TITLE, DIGEST)
def test_another_title_or_content_has_another_key(
    secret: bytes, title: str, digest: bytes, other: str, changed: bytes
) -> None:
    keys = ContentKeys(secret)
    one, two = keys.key_id(title, digest), keys.key_id(other, changed)
    assert (one == two) == ((title, digest) == (other, changed))
    assert (keys.key(one) == keys.key(two)) == (one == two)


@given(SECRET, SECRET, TITLE, DIGEST)
def test_a_key_of_another_secret_is_recognised(secret: bytes, lost: bytes, title: str, digest: bytes) -> None:
    key_id = ContentKeys(lost).key_id(title, digest)
    assert ContentKeys(secret).owns(key_id) == (secret == lost)
