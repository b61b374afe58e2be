"""Conditions that choose images, such as ``len(real) > 1 and class == "tench"``.

A condition has Python's syntax, but is not run as Python: it is parsed, its names and operators are checked against
those of this module, and each part becomes a function of an image's facts.

======================  ============================================================================================
``original``, ``class``  the original label
``real``                 the ReaL labels, a set
``predicted``            the answer of the first prediction file; ``A``, ``B``, ... are those of the first, second, ...
``top5``                 the five best answers of the first prediction file, a set
``flipped(A, B)``        one of the two models is right by the ReaL labels, the other is wrong
``key``                  the key, as text
``width``, ``height``    in pixels
``len(real)``            the number of labels
======================  ============================================================================================

A class is compared with its index, its wnid or its name: ``class == "tench"``, ``"n01440764" in real``. Conditions are
joined by ``and``, ``or``, ``not`` and brackets; ``in``, ``not in`` and the comparisons work as in Python.
"""

from __future__ import annotations

import ast
import difflib
import io
import operator
import string
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from wds_real.errors import PlanError
from wds_real.labels import NUM_CLASSES, classes
from wds_real.labels.class_names import classes_by_name, index_of_wnid, plain_name
from wds_real.labels.file_names import sample_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from wds_real.data.dataset import Dataset
    from wds_real.scoring.predictions import Predictions

__all__ = ["MAX_CONDITION_LENGTH", "answers_of", "choose"]

MAX_CONDITION_LENGTH = 2_000  # characters: deeper nesting than this allows would exhaust Python's parser
_NO_ANSWER = -1

_CLASS, _CLASSES, _NUMBER, _TEXT, _TRUTH = "a class", "a set of classes", "a number", "text", "a condition"
_COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_MAX_DEPTH = 50
_KEYWORD = "class_"  # stands for ``class``, which is no name in Python


class _Facts(NamedTuple):
    """What is known of one image.

    Attributes:
        answers: Of each prediction file, class indices, best first; -1 where there is none.
    """

    key: str
    original: int
    real: frozenset[int]
    width: int
    height: int
    answers: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a condition: the kind of its value, and the function that gives it for an image."""

    kind: str
    value: Callable[[_Facts], Any]
    constant: Any = None


def choose(
    dataset: Dataset,
    names: Sequence[str] = (),
    *,
    where: str | None = None,
    predictions: Sequence[Predictions] = (),
) -> NDArray[np.int64]:
    """Return the places in `dataset` of the images with these names, for which the condition holds.

    Args:
        dataset: Whose images are tried; none of them is read.
        names: Keys or file names, in any spelling that `score` takes; none means all images.
        where: A condition as this module describes; None means that every image fits.
        predictions: What ``predicted``, ``A``, ``B``, ... stand for.

    Returns:
        int64 (M,), in the order of the names, or ascending without names.

    Raises:
        PlanError: a name is not in the data set, the condition is not valid, or it needs predictions that are missing.
    """
    places = np.arange(len(dataset)) if where is None else _matching(dataset, where, predictions)
    if not names:
        return places
    place_of = {key: place for place, key in enumerate(dataset.keys)}
    unknown = next((name for name in names if sample_key(name) not in place_of), None)
    if unknown is not None:
        raise PlanError(f"{unknown} is not one of the {len(dataset):,} samples of {dataset.root}, {dataset.split}.")
    fitting = set(places.tolist())
    named = [place_of[sample_key(name)] for name in names]
    return np.array([place for place in named if place in fitting], dtype=np.int64)


def answers_of(dataset: Dataset, predictions: Predictions) -> NDArray[np.int64]:
    """Return the predicted classes of each image of `dataset`, int64 (N, 5); -1 where there is none."""
    row_of = {key: row for row, key in enumerate(predictions.keys)}
    rows = np.array([row_of.get(key, -1) for key in dataset.keys], dtype=np.int64)
    answers = np.full((len(rows), predictions.classes.shape[1]), _NO_ANSWER, dtype=np.int64)
    answers[rows >= 0] = predictions.classes[rows[rows >= 0]]
    return answers


def _matching(dataset: Dataset, condition: str, predictions: Sequence[Predictions]) -> NDArray[np.int64]:
    holds = _parse(condition, num_files=len(predictions))
    index = dataset.index
    answers = [answers_of(dataset, one).tolist() for one in predictions]
    found = []
    for place, row in enumerate(dataset.positions.tolist()):
        facts = _Facts(
            index.keys[row],
            int(index.original_label[row]),
            frozenset(index.real_label[row]),
            int(index.width[row]),
            int(index.height[row]),
            tuple(tuple(one[place]) for one in answers),
        )
        if holds(facts):
            found.append(place)
    return np.array(found, dtype=np.int64)


def _parse(condition: str, *, num_files: int) -> Callable[[_Facts], bool]:
    if len(condition) > MAX_CONDITION_LENGTH:
        raise PlanError(f"the condition has {len(condition):,} characters, expected at most {MAX_CONDITION_LENGTH:,}.")
    try:
        tree = ast.parse(_without_keyword(condition), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError, tokenize.TokenError) as error:
        text = error.msg if isinstance(error, SyntaxError) else "it cannot be parsed"
        raise PlanError(
            f'{condition!r} is not a condition: {text}. Write it as in Python: len(real) > 1 and class == "tench".'
        ) from error
    if _depth(tree.body) > _MAX_DEPTH:
        raise PlanError(f"{condition!r} is nested more than {_MAX_DEPTH} deep. Use fewer brackets and `not`s.")
    part = _Compiler(condition, num_files).part(tree.body)
    if part.kind != _TRUTH:
        raise PlanError(f"{condition!r} is {part.kind}, expected a condition, such as {_example(part.kind)}.")
    return part.value


def _depth(tree: ast.AST) -> int:
    """Return how deep the parts of a condition are nested."""
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return depth


def _without_keyword(condition: str) -> str:
    """Return the condition with `_KEYWORD` for each ``class`` outside of strings."""
    tokens = [
        (kind, _KEYWORD if kind == tokenize.NAME and text == "class" else text)
        for kind, text, *_ in tokenize.generate_tokens(io.StringIO(condition.strip()).readline)
    ]
    return tokenize.untokenize(tokens).strip()


def _example(kind: str) -> str:
    return {
        _CLASS: 'class == "tench"',
        _CLASSES: "original not in real",
        _NUMBER: "len(real) > 1",
    }.get(kind, 'key == "ILSVRC2012_val_00000001"')


class _Compiler:
    """Compiles the syntax tree of a condition to functions, and checks the kinds of its values."""

    def __init__(self, condition: str, num_files: int) -> None:
        self._condition = condition
        self._num_files = num_files
        self._names = {
            "original": _Part(_CLASS, lambda facts: facts.original),
            _KEYWORD: _Part(_CLASS, lambda facts: facts.original),
            "real": _Part(_CLASSES, lambda facts: facts.real),
            "key": _Part(_TEXT, lambda facts: facts.key),
            "width": _Part(_NUMBER, lambda facts: facts.width),
            "height": _Part(_NUMBER, lambda facts: facts.height),
            "predicted": _Part(_CLASS, lambda facts: facts.answers[0][0]),
            "top5": _Part(_CLASSES, lambda facts: frozenset(facts.answers[0]) - {_NO_ANSWER}),
            **{letter: _answer(place) for place, letter in enumerate(string.ascii_uppercase)},
        }

    def part(self, node: ast.expr) -> _Part:
        """Return the compiled part for a node of the syntax tree.

        Raises:
            PlanError: a condition may not hold this node.
        """
        if isinstance(node, ast.BoolOp):
            parts = [self._condition_of(value) for value in node.values]
            every = all if isinstance(node.op, ast.And) else any
            return _Part(_TRUTH, lambda facts: every(part.value(facts) for part in parts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._negated(node.operand)
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return _Part(_NUMBER, lambda _: node.value, node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return _Part(_TEXT, lambda _: node.value, node.value)
        raise self._error(f"{self._text(node)} is not allowed", "Use names, numbers, texts, comparisons, and, or, not.")

    def _condition_of(self, node: ast.expr) -> _Part:
        part = self.part(node)
        if part.kind not in (_TRUTH, _CLASSES):
            raise self._error(f"{self._text(node)} is {part.kind}", "Expected a condition on both sides.")
        return part

    def _negated(self, node: ast.expr) -> _Part:
        """Return ``not`` of a condition or of a set: an empty set counts as false, as in Python."""
        part = self._condition_of(node)
        return _Part(_TRUTH, lambda facts: not part.value(facts))

    def _comparison(self, node: ast.Compare) -> _Part:
        sides = [node.left, *node.comparators]
        pairs = [
            self._pair(left, operation, right)
            for left, operation, right in zip(sides[:-1], node.ops, sides[1:], strict=True)
        ]
        return _Part(_TRUTH, lambda facts: all(pair(facts) for pair in pairs))

    def _pair(self, left: ast.expr, operation: ast.cmpop, right: ast.expr) -> Callable[[_Facts], bool]:
        one, other = self.part(left), self.part(right)
        where = f"{self._text(left)} ... {self._text(right)}"
        if isinstance(operation, (ast.In, ast.NotIn)):
            if other.kind != _CLASSES:
                raise self._error(f"{self._text(right)} is {other.kind}", "`in` needs a set: real or top5.")
            meant = self._as_class(one, where)
            if isinstance(operation, ast.In):
                return lambda facts: meant.value(facts) in other.value(facts)
            return lambda facts: meant.value(facts) not in other.value(facts)
        compare = _COMPARISONS.get(type(operation))
        if compare is None:
            raise self._error(f"{where}: `is` is not allowed", "Use == or !=.")
        if _CLASS in (one.kind, other.kind):
            if not isinstance(operation, (ast.Eq, ast.NotEq)):
                raise self._error(f"{where}: classes have no order", "Use == or !=.")
            one, other = self._as_class(one, where), self._as_class(other, where)
        if one.kind != other.kind or one.kind == _TRUTH:
            raise self._error(f"{where} compares {one.kind} with {other.kind}", "Compare two of the same kind.")
        return lambda facts: compare(one.value(facts), other.value(facts))

    def _as_class(self, part: _Part, where: str) -> _Part:
        """Return a part as a class; a class may be given by its index, wnid or name."""
        if part.kind == _CLASS:
            return part
        if type(part.constant) is int and 0 <= part.constant < NUM_CLASSES:
            return _Part(_CLASS, part.value)
        if isinstance(part.constant, str):
            index = self._class_index(part.constant)
            return _Part(_CLASS, lambda _: index)
        got = part.kind if part.constant is None else repr(part.constant)
        raise self._error(f"{where}: got {got}, expected a class", "Give an index 0..999, a wnid or a name.")

    def _class_index(self, text: str) -> int:
        if text in index_of_wnid():
            return index_of_wnid()[text]
        indices = classes_by_name().get(plain_name(text), ())
        if len(indices) == 1:
            return indices[0]
        if indices:
            meant = " or ".join(f"{classes()[index].wnid} ({index})" for index in indices)
            raise self._error(f"{text!r} is the name of {len(indices)} classes", f"Give the wnid or index: {meant}.")
        near = difflib.get_close_matches(plain_name(text), classes_by_name(), n=3)
        advice = f"Similar: {', '.join(near)}." if near else "`wds-real info` shows the names of an image's classes."
        raise self._error(f"{text!r} is not a class", advice)

    def _call(self, node: ast.Call) -> _Part:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if node.keywords or name not in ("len", "flipped"):
            raise self._error(f"{self._text(node)} is not allowed", "The functions are len(real) and flipped(A, B).")
        parts = [self.part(argument) for argument in node.args]
        if name == "len":
            if [part.kind for part in parts] != [_CLASSES]:
                raise self._error(f"{self._text(node)} is not allowed", "Expected len(real) or len(top5).")
            return _Part(_NUMBER, lambda facts: len(parts[0].value(facts)))
        if [part.kind for part in parts] != [_CLASS, _CLASS]:
            raise self._error(
                f"{self._text(node)} is not allowed", "Expected flipped(A, B), with two prediction files."
            )
        one, other = parts
        return _Part(
            _TRUTH,
            lambda facts: bool(facts.real) and (one.value(facts) in facts.real) != (other.value(facts) in facts.real),
        )

    def _name(self, name: str) -> _Part:
        if name not in self._names:
            known = [known for known in self._names if len(known) > 1]
            near = difflib.get_close_matches(name, known, n=1)
            advice = (
                f"Perhaps {near[0]}?" if near else f"The names are {', '.join(sorted({*known} - {_KEYWORD}))}, class."
            )
            raise self._error(f"{name} is not known", advice)
        needed = 1 if name in ("predicted", "top5") else string.ascii_uppercase.find(name) + 1
        if needed > self._num_files:
            raise self._error(
                f"{name} needs {needed} prediction file{'s' if needed > 1 else ''}, given {self._num_files}",
                "Give them with --predictions FILE.",
            )
        return self._names[name]

    def _text(self, node: ast.expr) -> str:
        return ast.unparse(node).replace(_KEYWORD, "class")

    def _error(self, problem: str, advice: str) -> PlanError:
        return PlanError(f"{self._condition!r}: {problem}. {advice}")


def _answer(place: int) -> _Part:
    return _Part(_CLASS, lambda facts: facts.answers[place][0])
