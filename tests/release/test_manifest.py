from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import IntegrityError
from pipeline.release.manifest import difference, format_sums, name_problem, parse_sums

DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
ANY_NAME = st.text(st.characters() | st.sampled_from("/\\\n .*"), min_size=1, max_size=20)
PLAIN = st.text(string.ascii_letters + "é._- /", min_size=1, max_size=20)


@given(st.dictionaries(ANY_NAME | PLAIN, DIGESTS, max_size=5))
def test_what_is_written_is_read_again_or_refused(hashes: dict[str, str]) -> None:
    if any(map(name_problem, hashes)):
        with pytest.raises(IntegrityError):
            format_sums(hashes)
    else:
        assert parse_sums(format_sums(hashes), "it") == hashes


LINES = st.builds(
    "".join,
    st.tuples(DIGESTS, st.sampled_from(["  ", " *", " "]), ANY_NAME, st.sampled_from(["\n", ""])),
)


@given(st.lists(LINES, max_size=3).map("".join))
def test_any_text_is_read_in_one_way_or_refused_in_one_line(text: str) -> None:
    try:
        hashes = parse_sums(text, "it")
    except IntegrityError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert sorted(format_sums(hashes).split("\n")) == sorted(text.split("\n"))
    assert refusal.isprintable()


@pytest.mark.parametrize("name", ["a\nb", "a\\b", "../a", "/a", "a//b", "a/.", " a", "model.sig"])
def test_names_that_mislead_are_refused(name: str) -> None:
    assert name_problem(name)


def test_a_difference_names_what_is_in_one_only_and_what_changed() -> None:
    found = difference({"a": "1", "b": "1", "c": "1"}, {"b": "2", "c": "1", "d": "1"})
    assert (found.missing, found.added, found.changed) == (("a",), ("d",), ("b",))
    assert found.lines() == ["changed: b", "added: d", "missing: a"]
    assert not difference({"a": "1"}, {"a": "1"})
