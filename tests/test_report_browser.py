"""The report in a real browser: nothing is asked of the network, plots are drawn, tables sort, marks speak.

Needs Chromium (or Chrome) on the path.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from browser import FOUND, Tab, tab
from report_cases import MODELS, Model, collection, scores_file, study

from infoloss.study.report import render
from infoloss.study.report.collection import render_collection
from infoloss.study.report.page import asset

pytestmark = pytest.mark.skipif(FOUND is None, reason="needs Chromium or Chrome")

DESKTOP, PHONE = 1200, 390
# The drawn marks of each figure; a path of one point or a bar of no height is drawn by no browser.
MARKS = "path.curve, path.filled, path.hollow, line.adjusted, line.unadjusted, rect.wrong, rect.right"


MANY = tuple(Model(f"focal(gamma={index}) + 0.1*entropy", 2.8 + 0.02 * index, 1.0) for index in range(20))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    with tab(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    where = tmp_path_factory.mktemp("reports")
    return {
        "study": render(study(seeds=4, rows=120), where / "study"),
        "two classes": render(study(MODELS[:2], seeds=3, classes=2, rows=60), where / "two"),
        "scores": render(scores_file(), where / "scores"),
        "many losses": render(study(MANY, seeds=3, rows=60), where / "many"),
        "collection": render_collection(collection(), where / "collection"),
    }


@pytest.fixture(params=["study", "two classes", "scores", "collection"])
def page(request, pages) -> Path:
    return pages[request.param]


@pytest.fixture
def opened(chromium, pages) -> Tab:
    chromium.show(width=DESKTOP)
    chromium.open(pages["study"])
    return chromium


@pytest.mark.parametrize(("width", "dark"), [(DESKTOP, False), (DESKTOP, True), (PHONE, False)])
def test_nothing_is_fetched_complained_of_or_wider_than_the_page(chromium, page, width, dark):
    chromium.show(width=width, dark=dark, touch=width == PHONE)
    chromium.open(page)
    assert chromium.complaints == []
    assert chromium.requests == [page.resolve().as_uri()]
    assert chromium.value("document.documentElement.scrollWidth") <= width


def test_a_complaint_and_a_request_would_be_noticed(chromium, pages, tmp_path):
    text = pages["scores"].read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("<body>", "<body><script>nowhere()</script>"), encoding="utf-8")
    chromium.open(broken)
    assert "nowhere is not defined" in " ".join(chromium.complaints)
    greedy = tmp_path / "greedy.html"
    image = '<img src="https://infoloss.invalid/a.png">'
    greedy.write_text(text.replace("<body>", f"<body>{image}"), encoding="utf-8")
    chromium.open(greedy)
    assert "Content Security Policy" in " ".join(chromium.complaints)


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
def test_every_plot_is_drawn(chromium, page, width):
    chromium.show(width=width)
    chromium.open(page)
    chromium.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    drawings = chromium.value(f"""[...document.querySelectorAll("svg.drawing")].map((drawing) => {{
        const box = drawing.getBoundingClientRect();
        const marks = [...drawing.querySelectorAll("{MARKS}")].map((mark) => mark.getBBox());
        return {{
          wide: box.width, high: box.height,
          drawn: marks.filter((box) => box.width > 0 || box.height > 0).length,
          finite: marks.every((box) => isFinite(box.x + box.y + box.width + box.height)),
        }};
    }})""")
    assert len(drawings) == page.read_text(encoding="utf-8").count('class="drawing"')
    for drawing in drawings:
        assert min(drawing["wide"], drawing["high"]) > 80
        assert drawing["drawn"] >= 1
        assert drawing["finite"]


def sorted_columns(chromium: Tab) -> list[dict]:
    """For each column of each table: the keys of its bodies after one click on its head and after two."""
    return chromium.value("""[...document.querySelectorAll("table.sortable")].flatMap((table) => {
      const keys = (column) => [...table.tBodies].map((body) => [...body.rows]
        .filter((row) => row.cells.length > 1).map((row) => row.cells[column].dataset.key ?? null));
      return [...table.querySelectorAll("thead tr:last-child th")].map((head, column) => {
        const found = { table: table.parentNode.parentNode.id, column };
        for (const way of ["up", "down"]) {
          head.querySelector("button").click();
          found[way] = keys(column);
          found[`${way} said`] = head.getAttribute("aria-sort");
        }
        found.said = table.querySelectorAll("[aria-sort]").length;
        return found;
      });
    })""")


def test_a_click_on_a_head_sorts_its_table_by_that_column(chromium, page):
    chromium.show(width=DESKTOP)
    chromium.open(page)
    columns = sorted_columns(chromium)
    tables = {column["table"] for column in columns}
    assert len(tables) >= 3
    told_apart = 0
    for column in columns:
        assert (column["up said"], column["down said"]) == ("ascending", "descending")
        assert column["said"] == 1
        for way, downward in (("up", False), ("down", True)):
            for keys in column[way]:
                known = [key for key in keys if key is not None]
                assert keys == known + [None] * (len(keys) - len(known)), "what has no value comes last"
                assert ranked(known) == sorted(ranked(known), reverse=downward), column["table"]
                told_apart += len(set(known)) > 1
    assert told_apart >= 10


def ranked(keys: list[str]) -> list:
    """Numbers as numbers, and all as text where one is none."""
    numbers = [re.fullmatch(r"-?(\d+(\.\d*)?(e[-+]?\d+)?|inf)", key) for key in keys]
    return [float(key) for key in keys] if all(numbers) else keys


def middle(chromium: Tab, selector: str) -> tuple[float, float]:
    """Where the first such element is, once it is in sight and nothing scrolls any more."""
    box = chromium.value(f"""(async () => {{
      const found = document.querySelector("{selector}");
      found.scrollIntoView({{ block: "center" }});
      for (const frame of [1, 2, 3]) await new Promise(requestAnimationFrame);
      const box = found.getBoundingClientRect();
      return [box.left + box.width / 2, box.top + box.height / 2];
    }})()""")
    return box[0], box[1]


TIP = """(() => {
  const tip = document.querySelector(".tip");
  if (tip.hidden) return null;
  const box = tip.getBoundingClientRect();
  return { words: tip.textContent, left: box.left, right: box.right, top: box.top };
})()"""
FIGURES = {
    "figure-forest": "rect.hit",
    "figure-calibration": "path.hit",
    "figure-reliability": "path.hit",
    "figure-curves": "path.trace",
}


@pytest.mark.parametrize("figure", FIGURES)
def test_a_mark_says_its_numbers_under_a_mouse(opened, figure):
    x, y = middle(opened, f"#{figure} {FIGURES[figure]}")
    if figure == "figure-curves":
        x, y = opened.value("""(() => {
          const trace = document.querySelector("#figure-curves path.trace"), place = trace.getScreenCTM();
          const at = trace.getPointAtLength(trace.getTotalLength() * 0.7).matrixTransform(place);
          return [at.x, at.y];
        })()""")
    assert opened.value(TIP) is None
    opened.move(x, y)
    tip = opened.value(TIP)
    assert re.search(r"\d", tip["words"])
    assert re.search(r"n = \d+ seeds|\d+ seeds|\d+ test predictions", tip["words"])
    opened.move(2, 2)
    assert opened.value(TIP) is None


def test_a_finger_sees_the_words_within_the_screen(chromium, pages):
    chromium.show(width=PHONE, touch=True)
    chromium.open(pages["study"])
    chromium.tap(*middle(chromium, "#figure-forest rect.hit"))
    tip = chromium.value(TIP)
    assert "cross_entropy(label_smoothing=0.1)" in tip["words"]
    assert tip["left"] >= 0
    assert tip["right"] <= PHONE
    assert tip["top"] >= 0


def test_the_arrow_keys_go_from_mark_to_mark(opened):
    middle(opened, "#figure-forest svg")
    opened.value("document.querySelector('#figure-forest svg').focus()")
    said = []
    for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft"):
        opened.press(key)
        said.append(opened.value(TIP)["words"])
    marks = opened.value(
        "[...document.querySelectorAll('#figure-forest svg')][0].querySelectorAll('[data-tip]').length"
    )
    assert marks == len(MODELS) - 1
    assert said[0] == said[2] != said[1]
    assert said[3] not in said[:3]
    opened.press("Escape")
    assert opened.value(TIP) is None


def test_paper_shows_what_is_folded(opened):
    folded = "document.querySelectorAll('details:not([open])').length"
    assert opened.value(folded) >= 3
    opened.value("dispatchEvent(new Event('beforeprint'))")
    assert opened.value(folded) == 0
    opened.value("dispatchEvent(new Event('afterprint'))")
    assert opened.value(folded) >= 3
    assert opened.pdf().startswith(b"%PDF")


def test_the_names_of_curves_stand_below_on_a_phone(chromium, pages):
    shown = "getComputedStyle(document.querySelector('.legend')).display"
    for width, display in ((DESKTOP, "none"), (PHONE, "flex")):
        chromium.show(width=width)
        chromium.open(pages["study"])
        assert chromium.value(shown) == display
    names = chromium.value("[...document.querySelectorAll('.legend')[0].children].map((e) => e.textContent)")
    assert len(names) == len(MODELS)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_of_words_stand_out(chromium, pages, dark):
    """Contrast of 4.5 and more on the page's ground (WCAG 2, AA)."""
    chromium.show(width=DESKTOP, dark=dark)
    chromium.open(pages["study"])
    names = set(re.findall(r"--[\w-]+", asset("colours.css")))
    words = ["--ink", "--muted", "--better", "--worse", "--equivalent"]
    assert set(words) <= names
    values = chromium.value(
        f"""[{", ".join(f'"{name}"' for name in ["--paper", *words])}]
        .map((name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim())"""
    )
    paper, *inks = map(luminance, values)
    for name, ink in zip(words, inks, strict=True):
        light, low = max(paper, ink), min(paper, ink)
        assert (light + 0.05) / (low + 0.05) >= 4.5, name
    assert (paper < 0.1) == dark


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


BOXES = """(selector) => [...document.querySelectorAll(selector)].map((found) => {
  const box = found.getBoundingClientRect();
  return { words: found.textContent, left: box.left, right: box.right, top: box.top, bottom: box.bottom };
})"""


def boxes(chromium: Tab, selector: str) -> list[dict]:
    return chromium.value(f"({BOXES})({selector!r})")


def overlap(a: dict, b: dict) -> bool:
    """More than a pixel, which is what fonts reach beyond their letters."""
    return min(a["right"], b["right"]) - max(a["left"], b["left"]) > 1 and (
        min(a["bottom"], b["bottom"]) - max(a["top"], b["top"]) > 1
    )


@pytest.mark.parametrize("name", ["study", "many losses"])
def test_names_cover_neither_each_other_nor_a_point(chromium, pages, name):
    chromium.show(width=DESKTOP)
    chromium.open(pages[name])
    words = boxes(chromium, "#figure-calibration text")
    points = boxes(chromium, "#figure-calibration [data-tip] path:not(.hit)")
    assert len(words) > len(points) / 2 >= 8
    for place, one in enumerate(words):
        others = [*words[place + 1 :], *points]
        assert not [other["words"] for other in others if overlap(one, other)], one["words"]


@pytest.mark.parametrize("figure", ["forest", "ranks"])
def test_words_cover_no_line_that_is_read(chromium, pages, figure):
    """Every row has a strip of paper over the lines, and its words stay inside."""
    chromium.show(width=DESKTOP)
    chromium.open(pages["collection" if figure == "ranks" else "study"])
    strips = boxes(chromium, f"#figure-{figure} rect.paper")
    words = boxes(chromium, f"#figure-{figure} [data-tip] text")
    named = [one for one in words if not re.fullmatch(r"[+−][\d.]+", one["words"])]
    assert len(named) >= len(strips) >= 9
    for one in named:
        holds = [s for s in strips if s["top"] - 2 <= one["top"] and one["bottom"] <= s["bottom"] + 2]
        assert any(overlap(strip, one) for strip in holds), one["words"]
    for strip in strips:
        marks = boxes(chromium, f"#figure-{figure} path.filled, #figure-{figure} path.hollow")
        assert not any(overlap(strip, mark) for mark in marks)


def test_a_table_that_is_wider_than_a_phone_says_so_and_shows_numbers(chromium, pages):
    chromium.show(width=PHONE, touch=True)
    chromium.open(pages["collection"])
    found = chromium.value("""[...document.querySelectorAll(".scroll")].map((box) => ({
      wide: box.scrollWidth > box.clientWidth + 1,
      says: getComputedStyle(box, "::before").content,
      frame: box.getBoundingClientRect().right,
      first: box.querySelector("tbody td:nth-child(3)")?.getBoundingClientRect().right,
    }))""")
    assert sum(table["wide"] for table in found) >= 3
    for table in found:
        assert ("scroll sideways" in table["says"]) == table["wide"]
        if table["wide"]:
            assert table["first"] < table["frame"] - 30, "the first loss is seen, and that more follow"
