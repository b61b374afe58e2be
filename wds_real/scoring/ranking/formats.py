"""A table of models as text, Markdown, CSV, HTML, LaTeX, or in the columns of timm's result files."""

from __future__ import annotations

import csv
import html
import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wds_real.scoring.counts import Accuracy
    from wds_real.scoring.ranking.rank import RankedModel, Ranking

__all__ = ["TABLE_FORMATS", "TableFormat", "format_ranking"]

TableFormat = Literal["text", "md", "csv", "html", "tex", "timm", "timm-real"]
_HEADS = (
    "rank", "model", "ReaL top-1", "ReaL top-5", "original top-1", "original top-5", "parameters", "input", "precision",
)  # fmt: skip
_SHOWN_PAIRS = 20
_LEFT = {"model", "input", "precision"}  # columns of words; the others are numbers, aligned to the right
_CSV_COLUMNS = (
    "rank", "rank_first", "rank_last", "model", "real_top1", "real_top1_correct", "real_top1_total", "real_top1_low",
    "real_top1_high", "real_top5", "original_top1", "original_top1_correct", "original_top1_total",
    "original_top1_low", "original_top1_high", "original_top5", "failed", "num_parameters", "img_size", "crop_pct",
    "crop_mode", "interpolation", "precision", "source",
)  # fmt: skip
_TIMM_COLUMNS = (
    "model", "img_size", "top1", "top1_err", "top5", "top5_err", "param_count", "crop_pct", "interpolation",
)  # fmt: skip
_STYLE = """<style>
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.8rem; border-bottom: 1px solid #ccc; text-align: right; }
th:is(:nth-child(2), :nth-child(n + 8)), td:is(:nth-child(2), :nth-child(n + 8)) { text-align: left; }
</style>"""
_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}",
          "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


def format_ranking(ranking: Ranking, form: TableFormat) -> str:
    """Return the table in one of the formats.

    ``timm`` has the columns of timm's result files, with the original labels; ``timm-real`` with the ReaL labels.
    """
    return TABLE_FORMATS[form](ranking)


def _text(ranking: Ranking) -> str:
    rows = [_HEADS, *_cells(ranking)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = [
        "  ".join(
            cell.ljust(width) if head in _LEFT else cell.rjust(width)
            for head, cell, width in zip(_HEADS, row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join(lines + [f" {note}" for note in _notes(ranking)]) + "\n"


def _markdown(ranking: Ranking) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rule = line("---" if head in _LEFT else "--:" for head in _HEADS)
    notes = [f"\n{note}" for note in _notes(ranking)]
    return "\n".join([line(_HEADS), rule, *map(line, _cells(ranking)), *notes]) + "\n"


def _html(ranking: Ranking) -> str:
    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in _cells(ranking))
    notes = "\n".join(f"<p>{html.escape(note)}</p>" for note in _notes(ranking))
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Models by ReaL top-1</title>\n{_STYLE}\n'
    return (
        head
        + f"<table>\n<thead>\n{row(_HEADS, 'th')}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n{notes}\n</html>\n"
    )


def _latex(ranking: Ranking) -> str:
    def line(cells: Iterable[str]) -> str:
        return " & ".join("".join(_LATEX.get(character, character) for character in cell) for cell in cells) + r" \\"

    columns = "".join("l" if head in _LEFT else "r" for head in _HEADS)
    notes = [f"% {note}" for note in _notes(ranking)]
    lines = [rf"\begin{{tabular}}{{{columns}}}", r"\hline", line(_HEADS), r"\hline", *map(line, _cells(ranking))]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", *notes]) + "\n"


def _csv(ranking: Ranking) -> str:
    lines: list[tuple[str, ...]] = [_CSV_COLUMNS]
    for model in ranking.models:
        row, accuracies = model.row, model.row.accuracies
        real, original = accuracies["real_top1"], accuracies["original_top1"]
        lines.append((
            *map(str, (model.rank, model.first, model.last)), row.name,
            *_counted(real), _percent(accuracies.get("real_top5")),
            *_counted(original), _percent(accuracies.get("original_top5")),
            str(row.failed), _known(row.num_parameters), _size(model),
            *(_known(row.preprocessing.get(name)) for name in ("crop_pct", "crop_mode", "interpolation")),
            row.precision, row.source,
        ))  # fmt: skip
    return _joined_csv(lines)


def _timm(ranking: Ranking, labels: str) -> str:
    lines: list[tuple[str, ...]] = [_TIMM_COLUMNS]
    for model in ranking.models:
        row = model.row
        top1, top5 = row.accuracies[f"{labels}_top1"], row.accuracies.get(f"{labels}_top5")
        millions = "" if row.num_parameters is None else f"{row.num_parameters / 1e6:.2f}"
        crop = row.preprocessing.get("crop_pct")
        errors = ["" if one is None else f"{100 - 100 * one.value:.3f}" for one in (top1, top5)]
        lines.append((
            row.name.removeprefix("timm:"), _size(model), _percent(top1), errors[0], _percent(top5), errors[1],
            millions, "" if crop is None else f"{crop:.3f}", _known(row.preprocessing.get("interpolation")),
        ))  # fmt: skip
    return _joined_csv(lines)


TABLE_FORMATS: dict[str, Callable[[Ranking], str]] = {
    "text": _text,
    "md": _markdown,
    "csv": _csv,
    "html": _html,
    "tex": _latex,
    "timm": lambda ranking: _timm(ranking, "original"),
    "timm-real": lambda ranking: _timm(ranking, "real"),
}


def _cells(ranking: Ranking) -> list[tuple[str, ...]]:
    cells: list[tuple[str, ...]] = []
    for model in ranking.models:
        row, how = model.row, model.row.preprocessing
        ranks = str(model.rank) if model.first == model.last else f"{model.rank} ({model.first}-{model.last})"
        given = [
            _size(model),
            f"crop {how['crop_pct']:g}" if how.get("crop_pct") else "",
            _known(how.get("interpolation")),
        ]
        cells.append((
            ranks, row.name + ("*" if row.failed else ""),
            _with_interval(row.accuracies["real_top1"]), _percent(row.accuracies.get("real_top5")),
            _with_interval(row.accuracies["original_top1"]), _percent(row.accuracies.get("original_top5")),
            "" if row.num_parameters is None else f"{row.num_parameters / 1e6:.2f} M",
            ", ".join(part for part in given if part), row.precision,
        ))  # fmt: skip
    return cells


def _notes(ranking: Ranking) -> list[str]:
    how = "image by image (McNemar's exact test)" if ranking.paired else "some pairs by their intervals alone"
    ranks = f"the ranks that differences beyond chance allow, {how}, p < 0.05 for all pairs together (Holm)"
    notes = [f"Intervals: 95 %. Rank (first-last): {ranks}."]
    if ranking.close:
        pairs = [f"{a} and {b}" for a, b in ranking.close]
        more = f" ... ({len(pairs):,} of {len(ranking.pairs):,} pairs)" if len(pairs) > _SHOWN_PAIRS else ""
        notes.append(f"Cannot be told apart on these images: {', '.join(pairs[:_SHOWN_PAIRS])}{more}.")
    failed = [f"{model.row.name} {model.row.failed:,}" for model in ranking.models if model.row.failed]
    if failed:
        notes.append(f"* unreadable images, counted as wrong: {', '.join(failed)}.")
    return notes


def _with_interval(accuracy: Accuracy) -> str:
    low, high = (100 * bound for bound in accuracy.interval)
    return f"{100 * accuracy.value:.3f} ({low:.2f}-{high:.2f})"


def _percent(accuracy: Accuracy | None) -> str:
    return "" if accuracy is None else f"{100 * accuracy.value:.3f}"


def _counted(accuracy: Accuracy) -> tuple[str, ...]:
    bounds = (f"{100 * bound:.4f}" for bound in accuracy.interval)
    return (_percent(accuracy), str(accuracy.correct), str(accuracy.total), *bounds)


def _size(model: RankedModel) -> str:
    size = model.row.preprocessing.get("img_size")
    if isinstance(size, list) and len(size) == 2:
        return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"
    return _known(size)


def _known(value: object) -> str:
    return "" if value is None else str(value)


def _joined_csv(lines: Iterable[Iterable[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
