"""The report says what the analysis holds, in every form, and nothing in it is taken for markup."""

from __future__ import annotations

import csv
import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from report_cases import MODELS, Model, scores_file, study

import infoloss as il
from infoloss.study.inference import Cell, Paired, judge
from infoloss.study.report import render
from infoloss.study.report.forest import forest
from infoloss.study.report.table import latex_text, markdown_code, markdown_text
from infoloss.study.report.verdicts import verdict_table
from infoloss.study.report.wording import GROUPS, MARKS, abbreviated, interval, number

VOID = {"meta", "link", "wbr", "br", "img", "input", "hr"}
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>alert('x')</script> & \"q\" | `b` {c} $d$ %e _f_ \\g"


class Page(HTMLParser):
    """Open and close tags must match; collects attributes and text by tag."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self.open and data.strip():
            self.texts.setdefault(self.open[-1], []).append(data.strip())

    @property
    def words(self) -> str:
        shown = (
            text for tag, texts in self.texts.items() if tag not in ("style", "script") for text in texts
        )
        return " ".join(" ".join(shown).split())


def rendered(analysis, folder: Path) -> tuple[Page, str]:
    page = render(analysis, folder)
    assert page == folder / "report.html"
    text = page.read_text(encoding="utf-8")
    return Page(text), text


@pytest.fixture(scope="module")
def full():
    return study(seeds=6, rows=200)


@pytest.fixture(scope="module")
def folder(full, tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("report")
    render(full, where)
    return where


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def failed(analysis, failures: tuple[str, ...]):
    losses = (*analysis.losses[:-1], replace(analysis.losses[-1], failures=failures))
    return replace(analysis, losses=losses)


def small(classes: int = 4, models: tuple[Model, ...] = MODELS[:3], seeds: int = 3):
    return study(models, seeds=seeds, classes=classes, rows=60)


def hostile():
    return replace(
        small(models=(MODELS[0], Model(HOSTILE, 3.0, 1.0))),
        title=HOSTILE,
        headline=(HOSTILE,),
        notes=(HOSTILE,),
        data={"name": HOSTILE, "class names": f"{HOSTILE},b,c,d"},
        protocol={HOSTILE: HOSTILE},
        environment={HOSTILE: HOSTILE},
        command=HOSTILE,
    )


def empty():
    nothing = small(models=MODELS[:1])
    bare = replace(
        nothing.losses[0],
        learning_rate=None,
        tuning={},
        seeds=(),
        failures=("no learning rate of the grid gave a finished run",),
        scores={},
        per_class_recall=None,
        confusion=None,
        reliability=None,
        reliability_scaled=None,
        curve={},
        cost={},
    )
    return replace(nothing, complete=False, losses=(bare,), verdicts=(), references=())


LONG = " + ".join(f"0.1*term_{index}" for index in range(40))
CASES = {
    "whole": small,
    "incomplete": lambda: replace(small(), complete=False),
    "untuned": lambda: replace(small(), tuned=False),
    "scores file": scores_file,
    "one loss": lambda: small(models=MODELS[:1]),
    "one seed": lambda: small(seeds=1),
    "failures": lambda: failed(small(), ("seed 3: diverged in epoch 2",)),
    "two classes": lambda: small(classes=2),
    "200 classes": lambda: small(classes=200),
    "long": lambda: small(models=(MODELS[0], Model(LONG, 3.0, 1.0))),
    "hostile": hostile,
    "many losses": lambda: small(
        models=tuple(Model(f"loss_{index}", 2.8 + 0.02 * index, 1.0) for index in range(24))
    ),
    "nothing finished": empty,
    "no loss": lambda: replace(empty(), losses=()),
}


@pytest.fixture(scope="module", params=CASES)
def case(request):
    return CASES[request.param]()


def test_every_study_gives_a_well_formed_offline_report(case, tmp_path):
    page, _ = rendered(case, tmp_path)
    fetched = {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}
    urls = [(tag, value) for tag, name, value in page.attributes if name in fetched]
    assert all(value.startswith(("#", "data:,")) or (tag == "a") for tag, value in urls)
    assert not [
        value for tag, value in urls if tag == "a" and not value.startswith(("#", "https://doi.org/"))
    ]
    styles = " ".join(page.texts["style"])
    assert "@import" not in styles
    assert "url(" not in styles
    handlers = [name for _, name, _ in page.attributes if name.startswith("on")]
    assert handlers == []
    for drawing in (tmp_path / "figures").iterdir():
        root = ElementTree.parse(drawing).getroot()
        assert root.tag == f"{SVG}svg"
        assert "var(" not in drawing.read_text(encoding="utf-8"), "many SVG readers know no CSS variables"
        assert "nan" not in re.findall(r"[a-z]+", " ".join(v for e in root.iter() for v in coordinates(e)))


def coordinates(element: ElementTree.Element) -> list[str]:
    return [element.get(name, "") for name in ("d", "x", "y", "x1", "x2", "y1", "y2", "transform", "width")]


def test_sections_stand_in_the_promised_order(full, tmp_path):
    page, text = rendered(full, tmp_path)
    assert page.texts["h2"] == [
        "Verdict",
        "What the verdict is about",
        "Paired differences",
        "Accuracy against calibration",
        "Reliability",
        "Learning curves",
        "Scores",
        "Classes",
        "Cost",
        "Tuning",
        "Data",
        "Failures",
        "Protocol",
        "Environment",
        "The losses",
        "Methods, for a paper",
        "Run it again",
    ]
    assert text.index(full.headline[0]) < text.index("<h2>Verdict")
    headings = re.findall(r"^## (.+)$", (tmp_path / "report.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == page.texts["h2"]


def test_scores_csv_holds_every_number_unrounded(full, folder):
    table = rows(folder / "scores.csv")
    assert len(table) == sum(len(loss.seeds) for loss in full.losses)
    for loss in full.losses:
        mine = [row for row in table if row["loss"] == loss.label]
        assert [int(row["seed"]) for row in mine] == list(loss.seeds)
        for key, values in loss.scores.items():
            assert [float(row[key]) for row in mine] == values.tolist()


def test_verdicts_csv_equals_the_verdicts(full, folder):
    table = rows(folder / "verdicts.csv")
    assert len(table) == len(full.verdicts) == 21
    for row, verdict in zip(table, full.verdicts, strict=True):
        assert (row["question"], row["metric"], row["loss"]) == (
            verdict.question,
            verdict.metric,
            verdict.loss,
        )
        assert row["outcome"] == verdict.outcome
        assert float(row["difference"]) == verdict.difference
        assert (float(row["interval_low"]), float(row["interval_high"])) == verdict.interval
        adjusted = (float(row["adjusted_interval_low"]), float(row["adjusted_interval_high"]))
        assert adjusted == verdict.adjusted_interval
        assert float(row["adjusted_p_value"]) == verdict.adjusted_p_value
        assert row["more_seeds"] == ("" if verdict.more_seeds is None else str(verdict.more_seeds))
        assert float(row["margin"]) == full.margins[verdict.metric]


def verdict_cells(text: str) -> list[list[str]]:
    """The words of the verdict table's cells, row by row; the first row is the baseline's."""
    body = text.split('id="table-verdicts"', 1)[1].split("</table>", 1)[0].split("<tbody>", 1)[1]
    cells = [re.split(r"<t[dh](?=[ >])", row)[1:] for row in body.split("<tr")[1:]]
    words = [[re.sub(r"<wbr>|^[^>]*>", "", cell) for cell in row] for row in cells]
    return [[" ".join(re.sub(r"<[^>]+>", " ", cell).split()) for cell in row] for row in words]


def test_the_verdict_table_says_each_outcome_in_words_with_its_numbers(full, tmp_path):
    _, text = rendered(full, tmp_path)
    table = verdict_cells(text)
    assert [row[0] for row in table[1:]] == [loss.label for loss in full.losses if not loss.baseline]
    asked = list(dict.fromkeys(verdict.question for verdict in full.verdicts))
    given = {(verdict.loss, verdict.question): verdict for verdict in full.verdicts}
    for loss, *cells in table[1:]:
        for cell, question in zip(cells, asked, strict=True):
            verdict = given[loss, question]
            equivalent = verdict.outcome == "equivalent"
            digits = 2 if verdict.metric == "accuracy" else 4
            assert verdict.outcome in cell
            assert number(verdict.difference, digits, signed=True) in cell
            assert f"n = {verdict.seeds}" in cell
            rests_on = verdict.equivalence_interval if equivalent else verdict.adjusted_interval
            assert interval(rests_on, digits) in cell
            assert ("90 %" in cell) == equivalent
            if verdict.more_seeds is not None:
                assert f"about {verdict.more_seeds} more seed" in cell


def test_negligible_identical_and_unsettled_verdicts_are_told_apart(full, tmp_path):
    better, same, stuck = full.verdicts[:3]
    verdicts = (
        replace(better, outcome="better", negligible=True),
        replace(same, outcome="equivalent", negligible=False, identical=True, difference=0.0),
        replace(stuck, outcome="undecided", negligible=False, more_seeds=None),
        *full.verdicts[3:],
    )
    _, text = rendered(replace(full, verdicts=verdicts), tmp_path)
    first, second, third = (row[1] for row in verdict_cells(text)[1:4])
    assert "better, but negligible" in first
    assert "identical predictions" in second
    assert "exactly 0" in second
    assert "more seeds alone cannot settle it" in third


def test_reference_lines_stand_apart_from_the_losses(full, tmp_path):
    page, text = rendered(full, tmp_path)
    body = text.split('id="table-scores"', 1)[1].split("</table>", 1)[0]
    assert body.count("<tbody>") == 2
    _, references = body.rsplit("<tbody>", 1)
    assert "Reference lines on the same splits, never in the verdict" in references
    assert "logistic regression" in references
    assert "cross_" not in references
    verdict_part = text.split('id="table-verdicts"', 1)[1].split("</table>", 1)[0]
    assert "logistic" not in verdict_part
    assert "exploratory" in page.words


def test_scores_table_prints_mean_and_sample_deviation(full, folder):
    loss = full.losses[2]
    mean, spread = loss.scores["accuracy"].mean() * 100, loss.scores["accuracy"].std(ddof=1) * 100
    markdown = (folder / "report.md").read_text(encoding="utf-8").split("## Scores", 1)[1]
    [row] = [line for line in markdown.splitlines() if line.startswith(f"| `{loss.label}` |")][:1]
    assert row.split(" | ")[1:3] == ["6", f"{mean:.2f}, ± {spread:.2f}"]


def test_markdown_tables_have_as_many_cells_as_heads(case, tmp_path):
    render(case, tmp_path)
    lines = (tmp_path / "report.md").read_text(encoding="utf-8").splitlines()
    tables, widths = 0, []
    for line in lines:
        if not line.startswith("|"):
            widths = []
            continue
        widths.append(len(re.findall(r"(?<!\\)\|", line)) - 1)
        tables += len(widths) == 1
        assert widths[-1] == widths[0], line
    assert tables >= 1


def test_names_are_escaped_in_every_form(tmp_path):
    page, text = rendered(hostile(), tmp_path)
    assert "alert(" not in " ".join(page.texts["script"])
    assert [tag for tag, *_ in page.attributes if tag == "script"] == []
    assert "<script>alert" not in text
    assert HOSTILE in page.texts["h1"]
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    outside_code = re.sub(r"(`+)[^`].*?(?<!`)\1(?!`)", "", markdown, flags=re.DOTALL)
    assert "<script>" in markdown
    assert "<script>" not in outside_code
    tex = (tmp_path / "tables.tex").read_text(encoding="utf-8")
    assert r"\textless{}script\textgreater{}" in tex
    assert r"\{c\} \$d\$ \%e \_f\_ \textbackslash{}g" in tex


def test_latex_has_no_unescaped_character_and_even_rows(folder):
    tex = (folder / "tables.tex").read_text(encoding="utf-8")
    tex.encode("ascii")
    for table in re.findall(r"\\begin\{tabular\}.*?\\end\{tabular\}", tex, re.DOTALL):
        [spec] = re.findall(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", table)
        assert {r"\toprule", r"\midrule", r"\bottomrule"} <= set(table.splitlines())
        for row in (
            line for line in table.splitlines() if line.endswith(r"\\") and "multicolumn" not in line
        ):
            assert len(re.findall(r"(?<!\\)&", row)) == len(spec) - 1
    bare = re.sub(r"\\label\{[^}]*\}|^%.*$", "", tex, flags=re.MULTILINE)
    assert not re.search(r"(?<!\\)[_#%]", bare)
    assert bare.count("$") % 2 == 0


def test_latex_and_markdown_text():
    assert latex_text("50 % & a_b #1 ~ ^ {x} $y$ \\z") == (
        r"50 \% \& a\_b \#1 \textasciitilde{} \textasciicircum{} \{x\} \$y\$ \textbackslash{}z"
    )
    assert latex_text("grid → trials") == r"grid $\to$ trials"
    assert latex_text("−0.5 ± λ") == r"$-$0.5 $\pm$ $\lambda$"
    assert markdown_text("a_b*c\n<d>") == r"a\_b\*c &lt;d&gt;"
    assert markdown_code("a|b") == r"`a\|b`"
    assert markdown_code("a`b") == "`` a`b ``"


def test_an_unfinished_untuned_study_says_so_before_its_verdicts(full, tmp_path):
    page, text = rendered(replace(full, tuned=False, complete=False), tmp_path)
    assert page.texts["li"][0] == "untuned: no verdict on rank"
    before = text.split("<h2>Verdict", 1)[0]
    assert "not finished" in before
    plain = (tmp_path / "report.md").read_text(encoding="utf-8").split("## Verdict", 1)[0]
    assert "untuned: no verdict on rank" in plain
    assert "not finished" in plain
    whole, _ = rendered(full, tmp_path)
    assert "untuned" not in whole.words.lower()
    assert "not finished" not in whole.words


def test_failures_are_counted_and_shown(full, tmp_path):
    page, text = rendered(failed(full, ("seed 2: diverged in epoch 3", "seed 5: out of memory")), tmp_path)
    assert "2 runs failed or diverged" in text.split("<h2>Verdict", 1)[0]
    assert "seed 2: diverged in epoch 3" in page.words
    assert "seed 5: out of memory" in page.words
    whole, _ = rendered(full, tmp_path)
    assert "No run failed or diverged." in whole.words


def test_what_a_scores_file_cannot_give_is_listed_once(tmp_path):
    page, _ = rendered(scores_file(), tmp_path)
    absent = ["Accuracy against calibration", "Reliability", "Learning curves", "Classes", "Cost", "Tuning"]
    assert not set(absent) & set(page.texts["h2"])
    assert page.texts["h2"][-1] == "What is not here"
    listed = [line.split(":")[0] for line in page.texts["li"] if ": needs " in line]
    assert listed == [*absent, "Protocol", "Environment"]
    assert not (tmp_path / "figures" / "reliability.svg").exists()


def test_a_loss_without_a_finished_run_has_a_row_but_no_verdict(full, tmp_path):
    verdicts = tuple(verdict for verdict in full.verdicts if verdict.loss != full.losses[-1].label)
    broken = replace(failed(full, ("seed 0: diverged: epoch 1",)), verdicts=verdicts)
    _, text = rendered(broken, tmp_path)
    last = verdict_cells(text)[-1]
    assert last[0] == f"{full.losses[-1].label} 1 failed"
    assert all("no verdict" in cell for cell in last[1:])


def test_class_tables_stop_at_twenty_classes(tmp_path):
    page, text = rendered(small(classes=20), tmp_path)
    assert 'id="table-recall"' in text
    page, text = rendered(small(classes=21), tmp_path)
    assert 'id="table-recall"' not in text
    assert "21 classes" in page.words


def test_recall_table_prints_the_recalls(full, folder):
    markdown = (folder / "report.md").read_text(encoding="utf-8").split("## Classes", 1)[1]
    loss = full.losses[1]
    row = next(line for line in markdown.splitlines() if line.startswith(f"| `{loss.label}`"))
    assert row.split(" | ")[1:] == [f"{value * 100:.1f}" for value in loss.per_class_recall[:-1]] + [
        f"{loss.per_class_recall[-1] * 100:.1f} |"
    ]


def test_every_number_has_its_n(full, folder):
    sections = re.split(r"^## ", (folder / "report.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    text = {section.split("\n", 1)[0]: section for section in sections}
    for name in ("Verdict", "Paired differences", "Accuracy against calibration", "Reliability"):
        assert "n = 6 seeds" in text[name], name
    assert "Means over the final runs, n = 6 seeds" in text["Learning curves"]
    assert "over n = 3 tuning seeds" in text["Tuning"]
    for name in ("Scores", "Cost"):
        heads = next(line for line in text[name].splitlines() if line.startswith("| loss"))
        assert heads.split(" | ")[1] == "n", name
    rows = full.losses[0].confusion.sum(axis=1)
    heads = next(line for line in text["Classes"].splitlines() if line.startswith("| loss"))
    assert re.findall(r"n = (\d+)", heads) == [str(count) for count in rows]


def test_small_costs_keep_their_figures(full, tmp_path):
    cost = {**full.losses[0].cost, "seconds": 0.04123, "step_milliseconds": 0.00678}
    losses = (replace(full.losses[0], cost=cost), *full.losses[1:])
    render(replace(full, losses=losses), tmp_path)
    text = (tmp_path / "report.md").read_text(encoding="utf-8").split("## Cost", 1)[1]
    row = next(line for line in text.splitlines() if line.startswith("| `cross_entropy`"))
    assert row.split(" | ")[2:4] == ["0.0412", "0.00678"]


def test_what_marks_say_is_in_every_figure(full, folder):
    """A title for each difference, loss, curve and bin, in the figures for papers too."""
    for name, least in (("forest", 21), ("calibration", 8), ("curves", 16), ("reliability", 16)):
        drawing = ElementTree.parse(folder / "figures" / f"{name}.svg")
        titles = [title.text for title in drawing.iter(f"{SVG}title")]
        assert len(titles) >= least, name
        assert all(re.search(r"\d", title) for title in titles)
    for loss in full.losses:
        assert f"{loss.label}\naccuracy {loss.scores['accuracy'].mean() * 100:.2f} %" in "\n".join(
            title.text
            for title in ElementTree.parse(folder / "figures" / "calibration.svg").iter(f"{SVG}title")
        )


def test_epochs_are_whole_numbers(tmp_path):
    few = small()
    curve = {key: values[:4] for key, values in few.losses[0].curve.items()}
    losses = tuple(replace(loss, curve=curve, cost={**loss.cost, "best_epoch": 4.0}) for loss in few.losses)
    render(replace(few, losses=losses), tmp_path)
    drawing = ElementTree.parse(tmp_path / "figures" / "curves.svg")
    ticks = [
        t.text for t in drawing.iter(f"{SVG}text") if t.get("text-anchor") == "middle" and t.text != "epoch"
    ]
    assert ticks == ["1", "2", "3", "4"] * 2


def test_a_choice_on_the_grids_edge_is_said(full, folder):
    markdown = (
        (folder / "report.md").read_text(encoding="utf-8").split("## Tuning", 1)[1].split("## Data", 1)[0]
    )
    edges = [line for line in markdown.splitlines() if "yes, the highest" in line]
    assert [line.split("`")[1] for line in edges] == ["rescaled_square"]
    assert "✓" in edges[0]


@pytest.mark.parametrize("metric", ["accuracy", "nll", "nll_scaled"])
def test_forest_places_better_to_the_right_for_scores_and_for_errors(full, metric):
    """The mark of a verdict, or its arrow at the edge, is right of zero exactly if the loss leads."""
    verdicts = [verdict for verdict in full.verdicts if verdict.metric == metric]
    drawing = ElementTree.fromstring(forest(verdicts, full.margins[metric]).inline())
    zero = float(drawing.find(f".//{SVG}line[@class='zero']").get("x1"))
    drawn = [group for group in drawing.iter(f"{SVG}g") if group.get("class") in MARKS]
    assert len(drawn) == len(verdicts) == 7
    for group, verdict in zip(drawn, verdicts, strict=True):
        assert group.get("class") == verdict.outcome
        arrow = group.find(f".//{SVG}line[@class='arrow']")
        mark = group.find(f"{SVG}path[@transform]")
        at = float(arrow.get("x1") if arrow is not None else re.findall(r"[-\d.]+", mark.get("transform"))[0])
        leads = verdict.difference > 0 if metric == "accuracy" else verdict.difference < 0
        assert (at > zero) == leads


def test_losses_have_one_order_in_every_table_and_figure(full, folder):
    labels = [loss.label for loss in full.losses]
    assert labels != sorted(labels)
    text = (folder / "report.md").read_text(encoding="utf-8")
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    ordered = 0
    for table in tables:
        first = re.findall(r"^\| `(.+?)`", table, re.MULTILINE)
        named = [label for label in first if label in labels]
        once = [label for place, label in enumerate(named) if label not in named[:place]]
        assert once == [label for label in labels if label in once], table
        ordered += len(once) > 2
    assert ordered >= 7
    for name, shown in (("forest", labels[1:]), ("calibration", labels), ("reliability", labels)):
        drawing = ElementTree.parse(folder / "figures" / f"{name}.svg")
        cut = {short: label for label, short in abbreviated(labels, 28).items()} | {
            label: label for label in labels
        }
        words = [cut[t.text] for t in drawing.iter(f"{SVG}text") if t.text in cut]
        assert words[: len(shown)] == shown, name
    assert "in the order of the study, the baseline first" in text


def test_forest_draws_intervals_to_scale(full):
    verdicts = [verdict for verdict in full.verdicts if verdict.metric == "accuracy"]
    drawing = ElementTree.fromstring(forest(verdicts, 0.5).inline())
    zero = float(drawing.find(f".//{SVG}line[@class='zero']").get("x1"))
    band = drawing.find(f".//{SVG}rect[@class='band']")
    point = float(band.get("width"))  # the band is ± .5 points wide: its pixels are those of one point
    groups = [group for group in drawing.iter(f"{SVG}g") if group.get("class") in MARKS]
    compared = 0
    for group, verdict in zip(groups, verdicts, strict=True):
        for class_, bounds in (("adjusted", verdict.adjusted_interval), ("unadjusted", verdict.interval)):
            line = group.find(f"{SVG}line[@class='{class_}']")
            if line is not None:
                drawn = [(float(line.get(end)) - zero) / point for end in ("x1", "x2")]
                rounding = 0.01 * (2 + max(map(abs, bounds))) / point  # pixels have two decimals
                assert drawn == pytest.approx(bounds, abs=rounding)
                compared += 1
    assert compared >= 10


def test_bibliography_holds_each_source_once(full, folder):
    text = (folder / "references.bib").read_text(encoding="utf-8")
    keys = re.findall(r"^@\w+\{([^,]+),", text, re.MULTILINE)
    assert len(keys) == len(set(keys))
    used = {name for loss in full.losses for name in loss.entries}
    assert {il.catalogue[name].bibtex_key for name in used if il.catalogue[name].bibtex} <= set(keys)
    assert {"holm1979", "schuirmann1987", "guo2017"} <= set(keys)
    assert text.count("{") == text.count("}")
    methods = (folder / "report.md").read_text(encoding="utf-8").split("## Methods", 1)[1].split("```", 1)[0]
    cited = {key for group in re.findall(r"\\\[([a-z0-9, ]+)\\\]", methods) for key in group.split(", ")}
    assert cited <= set(keys)
    assert "holm1979" in cited


def judged(*, examples: bool, resampled: bool):
    """A real verdict from evidence with or without test rows, over splits or on one."""
    rng = np.random.default_rng(3)
    parts = tuple(rng.normal(0.2, 1.0, size=30) for _ in range(4))
    rows = tuple(rng.permutation(150)[:30] if resampled else np.arange(30) for _ in parts)
    differences = np.array([values.mean() for values in parts])
    evidence = Paired(
        differences, rows if examples else None, parts if examples else None, 90, 30, resampled=resampled
    )
    return judge([Cell("labels", "accuracy", "min_ent", evidence, 0.5, higher_is_better=True)])


@pytest.mark.parametrize(
    ("examples", "resampled", "said"),
    [
        (True, True, "on new data from the same source"),
        (True, False, "trained on these same rows"),
        (False, True, "on new data from the same source"),
        (False, False, "new data may differ by more"),
    ],
)
def test_the_scope_claims_no_more_than_the_intervals_cover(examples, resampled, said, tmp_path):
    verdicts = tuple(judged(examples=examples, resampled=resampled))
    page, _ = rendered(replace(scores_file(), verdicts=verdicts), tmp_path)
    assert said in page.words
    assert f"The intervals cover: {verdicts[0].covers}." in page.words
    corrected = not examples and resampled
    assert ("nadeau2003" in (tmp_path / "references.bib").read_text(encoding="utf-8")) == corrected


def test_the_scope_says_what_there_is_and_no_more(full, tmp_path):
    several, ends = (
        "probabilities after temperature scaling are questions of their own",
        "names of learning curves",
    )
    page, _ = rendered(full, tmp_path)
    assert several in page.words
    assert ends in page.words
    page, _ = rendered(scores_file(), tmp_path)
    assert several not in page.words
    assert ends not in page.words
    page, _ = rendered(small(seeds=1), tmp_path)
    assert "There is no interval yet: the runs show no spread" in page.words
    assert "The intervals cover" not in page.words


def test_long_names_stay_apart_when_cut():
    names = [f"cross_entropy + {beta}*entropy + something_long_{beta}_at_the_end" for beta in range(30)]
    short = abbreviated(names, 14)
    assert len(set(short.values())) == 30
    assert max(map(len, short.values())) <= 14


def test_rendering_again_gives_the_same_bytes(full, tmp_path):
    render(full, tmp_path / "a")
    render(full, tmp_path / "b")
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert files == sorted(
        path.relative_to(tmp_path / "b") for path in (tmp_path / "b").rglob("*") if path.is_file()
    )
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


def test_a_seed_without_a_finite_score_is_counted(full, tmp_path):
    scores = {key: values.copy() for key, values in full.losses[1].scores.items()}
    scores["nll"][2] = math.inf
    losses = (full.losses[0], replace(full.losses[1], scores=scores), *full.losses[2:])
    page, _ = rendered(replace(full, losses=losses), tmp_path)
    assert "n = 5" in page.words
    assert np.isinf(float(rows(tmp_path / "scores.csv")[len(full.losses[0].seeds) + 2]["nll"]))


def test_questions_are_grouped_under_the_words_of_the_design(full, tmp_path):
    page, _ = rendered(full, tmp_path)
    for words in GROUPS.values():
        assert words in page.words


def test_a_single_verdict_is_adjusted_for_nothing(full):
    alone = replace(full, verdicts=full.verdicts[:1])
    assert "with the 95 % interval or, where equivalent, the 90 % interval" in verdict_table(alone).caption
    two = replace(full, verdicts=full.verdicts[:2])
    assert "with the interval adjusted for all 2 verdicts (Holm)" in verdict_table(two).caption
