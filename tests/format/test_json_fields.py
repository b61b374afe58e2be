"""JSON that is read strictly: what has two meanings, or is no standard JSON, is one line and never a traceback."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wds_real.errors import ManifestError
from wds_real.format.json_fields import field, is_text, parse_json, parse_object, shown

REFUSED = {
    "a field twice": (b'{"a": 1, "a": 1}', 'field "a" occurs twice'),
    "a field twice, inside": (b'[{"b": {"a": 1, "c": 2, "a": 3}}]', 'field "a" occurs twice'),
    "a field twice, spelled differently": (b'{"a": 1, "\\u0061": 2}', 'field "a" occurs twice'),
    "NaN": (b'{"a": NaN}', "NaN is not a JSON number"),
    "infinity": (b"[Infinity]", "Infinity is not a JSON number"),
    "less than nothing": (b"[-Infinity]", "-Infinity is not a JSON number"),
    "5,000 digits": (b'{"a": ' + b"9" * 5_000 + b"}", "a number of thousands of digits"),
    "100,000 lists": (b"[" * 100_000, "nested too deeply"),
    "100,000 objects": (b'{"a":' * 100_000, "nested too deeply"),
    "100,000 closed lists": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "not text": (b"\xff\xfe\xff", "codec can't decode"),
    "cut": (b'{"a": 1', "delimiter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_standard_does_not_allow_is_refused(name: str) -> None:
    """Each is a ValueError of one short line, and a ManifestError with the file's name where an object is read."""
    data, says = REFUSED[name]
    with pytest.raises(ValueError, match=says) as caught:
        parse_json(data)
    assert len(str(caught.value)) < 150
    assert "\n" not in str(caught.value)
    with pytest.raises(ManifestError, match=rf"^m\.json: not JSON \(.*{says}.*\)\."):
        parse_object(data, "m.json")


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_standard_json_is_read_as_python_reads_it(value: object) -> None:
    """Strictness changes no value."""
    data = json.dumps(value).encode()
    assert parse_json(data) == json.loads(data)


@pytest.mark.parametrize("data", [b"[]", b"5", b"null", b'"text"'])
def test_another_value_than_an_object_is_refused(data: bytes) -> None:
    """The error says what was found."""
    with pytest.raises(ManifestError, match=r"^m\.json: expected a JSON object, found a "):
        parse_object(data, "m.json")


@pytest.mark.parametrize("value", [None, "5", 5.0, True, -1, 2**62, 10**900, [1], {"a": 1}])
def test_an_integer_is_in_range_and_nothing_else(value: object) -> None:
    """The error names the file and the field, and shows the start of the value."""
    with pytest.raises(ManifestError, match=r"^m\.json: field 'n' is ") as caught:
        field({"n": value}, "n", int, "m.json")
    assert len(str(caught.value)) < 200
    assert field({"n": 2**62 - 1}, "n", int, "m.json") == 2**62 - 1


@pytest.mark.parametrize("value", ["\ud800", "a\udcff", "a\0b", "\x1b[2J", "a\nb", "\x7f", "\x9b"])
def test_strings_are_text_without_control_characters(value: str) -> None:
    """Half a surrogate pair and what commands a terminal is refused, and shown escaped."""
    assert not is_text(value)
    with pytest.raises(ManifestError, match="expected text without control characters") as caught:
        field({"s": value}, "s", str, "m.json")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["", "größe", "画像", "a b\xa0c", "\U0001f600"])
def test_other_text_is_taken(value: str) -> None:
    """Letters of any language, and blanks of any kind, are text."""
    assert is_text(value)
    assert field({"s": value}, "s", str, "m.json") == value


def test_a_value_in_a_message_is_short() -> None:
    """The start of a long value is shown; a value nested too deeply to print is described."""
    assert shown({"a": [1, None]}) == '{"a": [1, null]}'
    assert shown("x" * 1000) == '"' + "x" * 59 + "..."
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep) == "a deeply nested list"
    while deep:  # a deep list is taken apart by a loop, since its destructor would recurse
        deep = deep[0]  # type: ignore[assignment]
