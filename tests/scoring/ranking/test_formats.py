"""The formats of a table of models."""

from __future__ import annotations

import csv
import io
from html.parser import HTMLParser

import pytest

from wds_real.scoring.counts import Accuracy
from wds_real.scoring.ranking.formats import TABLE_FORMATS, TableFormat, format_ranking
from wds_real.scoring.ranking.rank import Ranking, rank_models
from wds_real.scoring.ranking.rows import ModelRow


def row(name: str, correct: int, *, failed: int = 0) -> ModelRow:
    accuracies = {
        "real_top1": Accuracy(correct, 46_837, failed), "real_top5": Accuracy(44_000, 46_837, failed),
        "original_top1": Accuracy(38_000, 50_000, failed), "original_top5": Accuracy(46_000, 50_000, failed),
    }  # fmt: skip
    return ModelRow(
        name=name,
        source=f"{name}/result.json",
        data={},
        accuracies=accuracies,
        num_parameters=25_557_032,
        preprocessing={"img_size": [224, 224], "crop_pct": 0.875, "crop_mode": "center", "interpolation": "bilinear"},
        precision="float32",
    )


@pytest.fixture
def ranking() -> Ranking:
    """Three models, two of them within chance, one with unreadable images and a name full of special characters."""
    return rank_models([row("timm:resnet50", 38_855), row("a|b<c>&_x%", 38_850, failed=3), row("weak", 20_000)])


def test_text_is_aligned_and_has_notes(ranking: Ranking) -> None:
    """Columns line up; ranges, close pairs and unreadable images are said."""
    lines = format_ranking(ranking, "text").splitlines()
    assert len({line.index("82.9") for line in lines[1:3]}) == 1
    assert "1 (1-2)" in lines[1]
    assert "224, crop 0.875, bilinear" in lines[1]
    assert any("Cannot be told apart on these images: timm:resnet50 and a|b<c>&_x%." in line for line in lines)
    assert any("* unreadable images, counted as wrong: a|b<c>&_x% 3." in line for line in lines)


def test_markdown_has_a_row_a_model(ranking: Ranking) -> None:
    """A bar in a name does not end the cell."""
    rows = [line for line in format_ranking(ranking, "md").splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert len({line.replace(r"\|", "").count("|") for line in rows}) == 1
    assert r"a\|b<c>&_x%" in rows[3]


def test_csv_has_counts_and_bounds(ranking: Ranking) -> None:
    """Every figure is a number in a column of its own."""
    rows = list(csv.DictReader(io.StringIO(format_ranking(ranking, "csv"))))
    first = rows[0]
    assert first["model"] == "timm:resnet50"
    assert (first["rank"], first["rank_first"], first["rank_last"]) == ("1", "1", "2")
    assert int(first["real_top1_correct"]) == 38_855
    assert float(first["real_top1"]) == pytest.approx(100 * 38_855 / 46_837, abs=5e-4)
    assert float(first["real_top1_low"]) < float(first["real_top1"]) < float(first["real_top1_high"])
    assert (rows[1]["failed"], first["num_parameters"], first["img_size"]) == ("3", "25557032", "224")


def test_html_is_well_formed_and_escaped(ranking: Ranking) -> None:
    """Tags are closed in order, and a name is text."""

    class Checked(HTMLParser):
        open_tags: list[str] = []  # noqa: RUF012 -- of one parser
        cells: list[str] = []  # noqa: RUF012

        def handle_starttag(self, tag: str, attrs: object) -> None:
            del attrs
            if tag != "meta":  # has no end
                self.open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open_tags.pop() == tag

        def handle_data(self, data: str) -> None:
            if self.open_tags and self.open_tags[-1] == "td":
                self.cells.append(data)

    parser = Checked()
    parser.feed(format_ranking(ranking, "html"))
    assert parser.open_tags == []
    assert "a|b<c>&_x%*" in parser.cells
    assert len(parser.cells) == 27


def test_latex_escapes_names(ranking: Ranking) -> None:
    """Special characters of LaTeX are escaped; each row has the same number of columns."""
    text = format_ranking(ranking, "tex")
    assert r"a|b<c>\&\_x\%*" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.replace(r"\&", "").count("&") for line in rows} == {8}


@pytest.mark.parametrize(("form", "top1"), [("timm", 100 * 38_000 / 50_000), ("timm-real", 100 * 38_855 / 46_837)])
def test_timm_columns(ranking: Ranking, form: TableFormat, top1: float) -> None:
    """The columns and decimals of timm's result files; the source is no part of the name."""
    lines = format_ranking(ranking, form).splitlines()
    assert lines[0] == "model,img_size,top1,top1_err,top5,top5_err,param_count,crop_pct,interpolation"
    first = next(csv.DictReader(lines))
    assert (first["model"], first["img_size"], first["param_count"]) == ("resnet50", "224", "25.56")
    assert (first["crop_pct"], first["interpolation"]) == ("0.875", "bilinear")
    assert first["top1"] == f"{top1:.3f}"
    assert float(first["top1"]) + float(first["top1_err"]) == pytest.approx(100)


@pytest.mark.parametrize("form", sorted(TABLE_FORMATS))
def test_unknown_facts_are_empty(form: TableFormat) -> None:
    """A prediction file has no parameters and no preprocessing; top-1 answers have no top-5."""
    accuracies = {"real_top1": Accuracy(5, 10), "original_top1": Accuracy(5, 10)}
    text = format_ranking(rank_models([ModelRow(name="m", source="m.csv", data={}, accuracies=accuracies)]), form)
    assert "50.000" in text
    assert "None" not in text
    assert "nan" not in text
