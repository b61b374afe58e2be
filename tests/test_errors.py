"""The error tree: what its docstring draws, the exit codes, and facts that survive a trip between processes."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
import re
from concurrent.futures import ProcessPoolExecutor

import pytest

from wds_real import errors
from wds_real.errors import (
    CoverageError,
    ManifestError,
    MissingError,
    ModelError,
    ModelRunError,
    PlanError,
    PredictionsError,
    ShardError,
    SourceError,
    StoreError,
    UnavailableError,
    WdsRealError,
    first_few,
    printable,
)

EXIT_CODES = {
    CoverageError: 3,
    ManifestError: 4,
    MissingError: 1,
    ModelError: 2,
    ModelRunError: 1,
    PlanError: 2,
    PredictionsError: 1,
    ShardError: 4,
    SourceError: 1,
    StoreError: 1,
    UnavailableError: 1,
    WdsRealError: 1,
}

EXAMPLES = [
    SourceError("the tar is cut"),
    ManifestError("manifest.json is damaged"),
    StoreError("the folder refused"),
    MissingError("no such file"),
    UnavailableError("gave up after 3 attempts"),
    PlanError("rank is 2"),
    ModelError("no such model"),
    ModelRunError("out of memory"),
    PredictionsError("no such column"),
    CoverageError("saw 1 of 2", missing=["a"], doubled=["b", "c"]),
    ShardError("checksum is wrong.", shard="s.tar", key="a.jpg", byte_range=(512, 700)),
    ShardError("the tar is cut.", shard="s.tar"),
]


HOSTILE = "a\x1b[2J\nerror: all is well\r\x00\x7f\x9b\u061c\u200b\u202e\u2028\u2066\ud800\udcffz"
ESCAPED = r"a\x1b[2J\nerror: all is well\r\x00\x7f\x9b\u061c\u200b\u202e\u2028\u2066\ud800\udcffz"


def raise_it(error: WdsRealError) -> None:
    """Raise from something else, as workers do."""
    raise error from OSError("underneath")


def test_the_docstring_draws_the_tree() -> None:
    """The classes drawn are the classes there are, each below the one it is drawn under, and __all__ has them."""
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    classes = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]
    assert sorted([*drawn, "WdsRealError"]) == sorted(cls.__name__ for cls in classes)
    assert errors.__all__ == [*sorted(cls.__name__ for cls in classes), "first_few", "printable"]
    parents: dict[type[Exception], type[WdsRealError]] = {
        MissingError: StoreError,
        UnavailableError: StoreError,
        ModelRunError: ModelError,
    }
    assert all(cls.__mro__[1] is parents.get(cls, WdsRealError) for cls in classes if cls is not WdsRealError)
    below = re.findall(r"│   [├└]── (\w+)", errors.__doc__ or "")
    assert below == ["MissingError", "UnavailableError", "ModelRunError"]


def test_only_a_plan_error_is_also_a_builtin_one() -> None:
    """A ValueError in a user's `except` catches impossible arguments, and nothing else of ours."""
    assert [cls for cls in EXIT_CODES if issubclass(cls, ValueError)] == [PlanError]


@pytest.mark.parametrize(("kind", "code"), EXIT_CODES.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_exit_codes_are_those_of_the_command_line(kind: type[WdsRealError], code: int) -> None:
    """1 failure, 2 usage, 3 coverage, 4 integrity; every class has one."""
    assert kind.exit_code == code
    assert {cls.__name__ for cls in EXIT_CODES} == {*errors.__all__} - {"first_few", "printable"}


@pytest.mark.parametrize(
    ("key", "byte_range", "expected"),
    [
        ("a.jpg", (512, 700), "s.tar: a.jpg [bytes 512-700): it is cut."),
        ("a.jpg", None, "s.tar: a.jpg: it is cut."),
        (None, (0, 512), "s.tar [bytes 0-512): it is cut."),
        (None, None, "s.tar: it is cut."),
    ],
)
def test_a_shard_error_says_where_first(key: str | None, byte_range: tuple[int, int] | None, expected: str) -> None:
    """Shard, key and half-open byte range lead the message, as far as they are known, and are attributes."""
    error = ShardError("it is cut.", shard="s.tar", key=key, byte_range=byte_range)
    assert str(error) == expected
    assert (error.problem, error.shard, error.key, error.byte_range) == ("it is cut.", "s.tar", key, byte_range)


def test_a_coverage_error_keeps_its_keys() -> None:
    """Missing and doubled keys are tuples, empty where nothing is said of them."""
    error = CoverageError("saw 1 of 2", missing=["a"])
    assert (str(error), error.missing, error.doubled) == ("saw 1 of 2", ("a",), ())


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_an_error_survives_being_pickled_and_copied(error: WdsRealError, way: str) -> None:
    """Type, message and facts are the same afterwards."""
    again = pickle.loads(pickle.dumps(error)) if way == "pickle" else copy.copy(error)  # noqa: S301 -- our own bytes
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_errors_cross_from_a_worker_process() -> None:
    """An error raised in another process arrives as what it was, with its facts."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for error in EXAMPLES:
            arrived = pool.submit(raise_it, error).exception()
            assert (type(arrived), str(arrived)) == (type(error), str(error))
            for name, value in vars(error).items():
                assert getattr(arrived, name) == value


def test_printable_text_is_one_line_that_commands_no_terminal() -> None:
    """Every control character, separator, direction mark and surrogate is escaped; other text is returned unchanged."""
    assert printable(HOSTILE) == ESCAPED
    assert printable(ESCAPED) == ESCAPED
    for text in ("", "val/n01440764/café 樹 👍.JPEG", r"C:\new\table"):
        assert printable(text) == text
    every = "".join(map(chr, range(0x110000)))
    shown = printable(every)
    assert shown.isprintable()
    assert shown.encode().decode() == shown


@pytest.mark.parametrize("kind", EXIT_CODES, ids=lambda kind: kind.__name__)
def test_messages_are_printable_lines(kind: type[WdsRealError]) -> None:
    """Whatever an error is told, its message is one printable line, also in a traceback and after pickling."""
    error = kind(HOSTILE)
    assert str(error) == ESCAPED
    assert str(pickle.loads(pickle.dumps(error))) == ESCAPED  # noqa: S301 -- our own bytes


def test_the_facts_of_an_error_are_not_escaped() -> None:
    """The attributes hold the names as they are; only the message is escaped."""
    error = ShardError("it is cut.", shard=f"{HOSTILE}.tar", key=HOSTILE)
    assert str(error) == f"{ESCAPED}.tar: {ESCAPED}: it is cut."
    assert (error.shard, error.key) == (f"{HOSTILE}.tar", HOSTILE)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 -- our own bytes
    assert (again.shard, again.key, str(again)) == (error.shard, error.key, str(error))


def test_a_list_in_a_message_is_short() -> None:
    """The first names and the number of all of them; a long name is cut."""
    assert first_few([f"x{number}" for number in range(20_000)]) == "x0, x1, x2 ... (20,000)"
    assert first_few(["a", "b"], count=1) == "a ... (2)"
    assert first_few({"a": 1}) == "a"
    assert first_few([]) == ""
    assert len(first_few(["n" * 100_000] * 5, count=5)) < 550
