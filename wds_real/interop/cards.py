"""Data cards: all that a catalogue page says of a data set, as Markdown, dataset card, Croissant or BibTeX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from wds_real.data.catalogue import DESCRIPTION, catalogue
from wds_real.interop.accepted_sets import check_images_known, check_written_here
from wds_real.interop.card_text import (
    ANNOTATION,
    BIBTEX,
    ERRATA,
    HOMEPAGE,
    IMAGES_FROM,
    IMAGES_LICENCE,
    IMAGES_LICENCE_URL,
    LABELS_FROM,
    LABELS_LICENCE_URL,
    LIMITS,
    NOT_FOR,
    ODD_IMAGES,
    PAPER,
)
from wds_real.interop.croissant import croissant_json
from wds_real.interop.huggingface import card_header
from wds_real.labels import bundled
from wds_real.labels.agreement import AGREEMENTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from wds_real.data.dataset import Dataset

__all__ = ["CardForm", "card"]

CardForm = Literal["md", "hf", "croissant", "bibtex"]

_USE_WITH_DATASETS = """```python
from datasets import load_dataset

ds = load_dataset("FOLDER", split="{split}")  # the folder of the shards and of this file
ds[0]["json"]["real_label"]  # class indices; ds.features["json"]["original_label"].int2str gives names
```"""


def card(dataset: Dataset, form: CardForm = "md") -> str:
    """Return the card of a data set; it describes the whole set, from manifest and index alone.

    Args:
        dataset: From `wds_real.open_dataset`.
        form: ``md``: Markdown; ``hf``: the same as a dataset card for Hugging Face, ``README.md`` beside the shards;
            ``croissant``: JSON-LD with RAI fields, ``croissant.json`` beside the shards; ``bibtex``: what to cite.

    Raises:
        StoreError: the set holds other images than ImageNet's; or, for ``hf`` and ``croissant``, which say what lies in
            the shards, another tool wrote these.
    """
    if form in ("hf", "croissant"):
        check_written_here(dataset)
    check_images_known(dataset)
    match form:
        case "md":
            return _markdown(dataset)
        case "hf":
            usage = _USE_WITH_DATASETS.format(split=dataset.manifest.split)
            return f"{card_header(dataset)}\n{_markdown(dataset, usage)}"
        case "croissant":
            return croissant_json(dataset)
        case "bibtex":
            return BIBTEX


def _markdown(dataset: Dataset, usage: str = "") -> str:
    facts = catalogue(dataset)
    sections = {
        "": _bold_table(_overview(facts)),
        "Use": usage,
        "Features": _table(("feature", "what it is"), ((f"`{name}`", what) for name, what in facts["features"].items()))
        + "\n\nSupervised keys: "
        + ", ".join(f"`{name}`" for name in facts["supervised_keys"]),
        "Labels": "\n\n".join(_label_tables(facts, _num_other_labels(dataset))),
        "Images": "\n\n".join([_image_table(facts), ODD_IMAGES]),
        "How the ReaL labels were made": ANNOTATION,
        "Origin and licence": _bold_table(
            {
                "Images": f"{IMAGES_FROM}; {IMAGES_LICENCE} ({IMAGES_LICENCE_URL})",
                "Source of this set": facts["source"],
                "Labels": f"{LABELS_FROM} ({LABELS_LICENCE_URL})",
                "Digest of the images": f"`{facts['source_digest']}`",
                "Digest of the labels": f"`{facts['labels_digest']}`",
            }
        ),
        "Known limits": _list([*LIMITS, f"Not for {NOT_FOR}."]),
        "Errors in other sources": _list(ERRATA),
        "Citation": f"```bibtex\n{BIBTEX}```",
    }
    parts = [f"# {facts['dataset']}", DESCRIPTION]
    parts += [f"## {title}\n\n{text}" if title else text for title, text in sections.items() if text]
    return "\n\n".join(parts) + "\n"


def _overview(facts: dict[str, Any]) -> dict[str, str]:
    part = " (a part of the 50,000 validation images: not for accuracies)" if facts["partial"] else ""
    return {
        "Homepage": HOMEPAGE,
        "Paper": PAPER,
        "Version": facts["version"],
        "Splits": ", ".join(f"`{name}`: {count:,} images{part}" for name, count in facts["splits"].items()),
        "Size": f"{facts['num_bytes']:,} bytes in {facts['num_shards']:,} shards",
        "Digest": f"`{facts['digest']}`",
    }


def _label_tables(facts: dict[str, Any], num_other: int) -> Iterator[str]:
    lengths = facts["images_by_number_of_real_labels"]
    yield _table(
        ("images", "count"),
        (
            ("all", facts["num_samples"]),
            ("with a ReaL label", facts["with_real_label"]),
            ("without a ReaL label", facts["without_real_label"]),
            ("ReaL labels in all", facts["real_labels"]),
        ),
    )
    yield _table(("ReaL labels of an image", "images"), lengths.items())
    agreements = facts["images_by_agreement"].items()
    yield _table(("original and ReaL labels", "images"), ((AGREEMENTS[name], count) for name, count in agreements))
    if num_other:
        yield f"The labels of {num_other:,} images are not the released ones."
    else:
        yield "The labels are the released ones."


def _num_other_labels(dataset: Dataset) -> int:
    """Return how many images have other labels than those bundled with the package."""
    index, released = dataset.index, bundled()
    rows = (index.label(position) for position in range(len(index)))
    return sum(
        (row.original_label, set(row.real_label)) != (known.original_label, set(known.real_label))
        for row in rows
        for known in [released.by_file_name(row.file_name)]
    )


def _image_table(facts: dict[str, Any]) -> str:
    units = {"width": "width, pixels", "height": "height, pixels", "num_bytes": "size, bytes"}
    known = ((units[name], *spread.values()) for name, spread in facts["images"].items() if spread is not None)
    return _table(("", "smallest", "median", "largest"), known)


def _bold_table(rows: dict[str, str]) -> str:
    return _table(("", ""), ((f"**{name}**", value) for name, value in rows.items()))


def _table(header: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    """Return a table in Markdown; columns of numbers are aligned right.

    >>> print(_table(("a", "b"), [("x", 1_000)]))
    | a | b |
    |---|--:|
    | x | 1,000 |
    """
    body = [tuple(row) for row in rows]
    are_numbers = [all(isinstance(row[column], int) for row in body) for column in range(len(header))]
    lines = [f"| {' | '.join(header)} |", f"|{'|'.join('--:' if number else '---' for number in are_numbers)}|"]
    lines += [
        f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else _escaped(str(cell)) for cell in row)} |"
        for row in body
    ]
    return "\n".join(lines)


def _escaped(text: str) -> str:
    """Return text that cannot end a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)
