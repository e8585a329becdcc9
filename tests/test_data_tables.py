"""Tables as users have them, and errors that name place, value and what was expected."""

import doctest
import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from infoloss.data import load, read_table

ROWS = [f"{i * 0.37:.2f},{'xyz'[i % 3]},{'no' if i % 2 else 'yes'}" for i in range(40)]
BASE = "\n".join(["a,b,class", *ROWS, ""])


@pytest.fixture
def table(tmp_path):
    def write(content, name="table.csv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_columns_and_labels(table):
    data = load(table(BASE))
    assert data.name == "table"
    assert data.features.names == ("a", "b")
    assert data.classes == ("no", "yes")
    assert data.target.tolist() == [1, 0] * 20
    np.testing.assert_allclose(data.features.numeric[:, 0], [round(i * 0.37, 2) for i in range(40)])
    assert data.features.categorical[0].codes.tolist() == [i % 3 for i in range(40)]


def test_same_table_in_every_dress(table):
    expected = load(table(BASE)).sha256
    quoted = BASE.replace("x", '"x"')
    for name, content in {
        "crlf.csv": BASE.replace("\n", "\r\n"),
        "bom.csv": b"\xef\xbb\xbf" + BASE.encode(),
        "semicolon.csv": BASE.replace(",", ";"),
        "tab.tsv": BASE.replace(",", "\t"),
        "zipped.csv.gz": gzip.compress(BASE.encode()),
        "zipped.tsv.gz": gzip.compress(BASE.replace(",", "\t").encode()),
        "blank_lines.csv": BASE.replace("\n3.33", "\n\n3.33") + "\n\n",
        "spaces.csv": BASE.replace(",", " , "),
        "quoted.csv": quoted,
        "utf16.csv": BASE.encode("utf-16"),
        "big_endian.csv": b"\xfe\xff" + BASE.encode("utf-16-be"),
        "commas.csv": BASE.replace(",", ";").replace(".", ","),
    }.items():
        assert load(table(content, name)).sha256 == expected, name


def test_latin_1_is_read_and_said(table):
    data = load(table(BASE.replace("x", "é").encode("latin-1")))
    assert data.features.categorical[0].categories == ("y", "z", "é")
    assert "table.csv is not UTF-8; read as Latin-1" in data.notes


def test_decimal_commas_are_said_and_read_only_where_semicolons_separate(table):
    data = load(table(BASE.replace(",", ";").replace(".", ",")))
    assert "decimal commas in: a" in data.notes
    tabs = load(table(BASE.replace(",", "\t").replace(".", ","), "table.tsv"), drop=["b"], text="hashed")
    assert "text: a" in tabs.notes


def test_fields_with_commas_quotes_and_line_breaks(table):
    text = 'a,"b, c",class\n' + "".join(f'{i * 0.3},"say ""{i % 3}""\nnow",{i % 2}\n' for i in range(40))
    data = load(table(text))
    assert data.features.names == ("a", "b, c")
    assert data.features.categorical[0].categories[0] == 'say "0"\nnow'


def test_missing_fields(table):
    text = BASE.replace("\n0.37,", "\n?,").replace("\n0.74,z", "\n0.74,NA").replace("\n1.11,", "\n,")
    data = load(table(text))
    assert data.features.missing_counts() == {"a": 2, "b": 1}
    assert "missing numbers replaced by the median of the training rows: a (2)" in data.notes
    assert "missing categories are a category of their own: b (1)" in data.notes


def test_stray_text_in_a_column_of_numbers(table):
    data = load(table(BASE.replace("\n0.37,", "\nabc,")))
    assert data.features.missing_counts() == {"a": 1}
    assert "column 'a' holds numbers; text in it, such as 'abc', is read as missing" in data.notes


def test_dates_are_seconds(table):
    text = "when,class\n" + "".join(f"2020-01-{1 + i % 28:02d},{i % 2}\n" for i in range(60))
    data = load(table(text))
    assert data.features.numeric[:3, 0].tolist() == [1577836800 + 86400 * i for i in range(3)]
    assert "column 'when' holds dates, read as seconds since 1970" in data.notes


@pytest.mark.parametrize(
    ("header", "target"),
    [("a,b,class", "class"), ("Target,b,class", "Target"), ("a,Y,label", "label"), ("y,b,c", "y")],
)
def test_default_target_by_name(table, header, target):
    rows = "".join(f"{i % 2},{i % 3},{i % 4 // 2}\n" for i in range(60))
    assert load(table(f"{header}\n{rows}")).notes[0] == f"target: {target}"


def test_default_target_is_the_last_column_and_said(table):
    data = load(table(BASE.replace("class", "outcome")))
    assert data.notes[0].startswith("target: outcome (the last column, taken as target since none is called")


def test_roles_are_no_features(table):
    rows = "".join(f"{i // 4},{i % 3},{i * 0.3},{i % 5},{i % 2}\n" for i in range(80))
    data = load(table("g,w,a,junk,class\n" + rows), group="g", sample_weight="w", drop=["junk"])
    assert data.features.names == ("a",)
    assert data.sample_weight.tolist() == [i % 3 for i in range(80)]
    part = data.split(0)
    assert not set(part.train // 4) & set(part.test // 4)
    assert data.arrays(part).sample_weight.dtype == np.float32
    assert {"rows kept together by: g", "sample weights: w"} <= set(data.notes)


def test_split_column_and_test_file_agree(table):
    sides = "".join(f"{row},{'train' if i < 30 else 'test'}\n" for i, row in enumerate(ROWS))
    by_column = load(table("a,b,class,part\n" + sides), split="part")
    first = table("\n".join(["a,b,class", *ROWS[:30], ""]), "first.csv")
    columns_moved = "\n".join(",".join(row.split(",")[::-1]) for row in ROWS[30:])
    second = table(f"class,b,a\n{columns_moved}\n", "second.csv")
    by_file = load(first, test=second)
    assert by_column.sha256 == by_file.sha256
    assert by_column.split(2).sha256 == by_file.split(2).sha256
    assert by_file.split(0).test.tolist() == list(range(30, 40))
    assert len(load(first, test=second, split="0.5/0.5").split(0).train) == 15


def test_category_of_the_test_file_alone_is_unknown_to_the_model(table):
    other = table(BASE.replace("x", "new"), "other.csv")
    data = load(table(BASE), test=other)
    part = data.split(0)
    arrays = data.arrays(part)
    column = arrays.feature_names.index("b=new")
    assert (arrays.features[:, column] == 0).all()


PRICES = "area,price\n" + "".join(f"{i % 7},{i * 1.5}\n" for i in range(812))
ERRORS = {
    "empty file": ("", {}, r"table.csv is empty; expected a header line and rows"),
    "blank file": ("\n\n", {}, r"table.csv is empty"),
    "header alone": ("a,b\n", {}, r"has a header line but no rows"),
    "ragged": (BASE + "1,x,yes,9\n", {}, r"line 42 has 4 fields, the header 3"),
    "bytes": (bytes(range(256)) * 10, {}, r"table.csv is no table: line 2 has 1 fields, the header 2"),
    "half of UTF-16": (b"\xff\xfea\x00b", {}, r"no table: it begins as UTF-16, but .* truncated data"),
    "duplicate names": (BASE.replace("a,b", "a,a"), {}, r"more than one column 'a'; expected distinct names"),
    "infinite": (
        BASE.replace("\n0.37,", "\n-inf,"),
        {},
        r"column 'a' is infinite in row 1 \(counted from 0\)",
    ),
    "missing label": (BASE + "1,x,\n", {}, r"class has 1 missing label .* the first in row 40"),
    "single class": (BASE.replace("no", "yes"), {}, r"single class 'yes'; expected two classes or more"),
    "continuous": (PRICES, {"target": "price"}, "^price has 812 distinct numbers; infoloss compares class"),
    "small class": (BASE + "1,x,maybe\n", {}, r"class 'maybe' has 1 row; the split needs 3 rows"),
    "target": (BASE, {"target": "clas"}, r"no column 'clas'; did you mean 'class'\?"),
    "drop": (BASE, {"drop": ["B"]}, r"no column 'B'; did you mean 'b'\?"),
    "group": (BASE, {"group": "patient"}, r"no column 'patient'; there are: 'a', 'b', 'class'"),
    "split column": (BASE, {"split": "prt"}, r"no column 'prt'"),
    "part names": (BASE, {"split": "b"}, r"split column holds 'x'; expected train, validation or test"),
    "two roles": (BASE, {"drop": ["class"], "target": "class"}, r"'class' is both target and dropped"),
    "weights": (BASE, {"sample_weight": "b"}, r"sample weights hold text such as 'x'; expected numbers"),
    "no features": (BASE, {"drop": ["a", "b"]}, r"no feature is left to learn from"),
    "test file": (BASE, {"test": "none.csv"}, r"none.csv: no such file"),
    "both": (BASE, {"test": "none.csv", "split": "b"}, r"both say which rows test"),
    "order and group": (BASE, {"order": "a", "group": "b"}, r"order and group cannot be combined"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(table, case):
    content, options, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        load(table(content), **options)


def test_test_file_without_a_column(table):
    other = table(BASE.replace("a,b", "a,bb"), "other.csv")
    with pytest.raises(ValueError, match=r"other.csv lacks column 'b' of .*table.csv; it has a, bb, class"):
        load(table(BASE), test=other)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", r"no data set 'digit'; did you mean 'digits'\?"),
        ("nowhere.csv", "nowhere.csv: no such file"),
        ("photos/", "^photos/: no such file or folder; expected .*a folder or .zip of images"),
        (__file__, r"test_data_tables\.py: expected \.csv, "),
    ],
)
def test_unknown_data(spec, message):
    with pytest.raises(ValueError, match=message):
        load(spec)


def test_table_options_are_not_for_built_in_sets():
    with pytest.raises(ValueError, match="target='a': 'wine' is a set with fixed columns; it takes split"):
        load("wine", target="a")


def test_parquet_is_the_same_table(tmp_path, table):
    text = BASE.replace("\n0.37,", "\n,").replace("\n0.74,z", "\n0.74,")
    path = tmp_path / "table.parquet"
    pl.read_csv(text.encode()).write_parquet(path)
    expected = load(table(text))
    assert load(path).sha256 == expected.sha256
    assert load(path, test=table(text)).sha256 == load(table(text), test=path).sha256
    assert load(path, test=path).sha256 == load(table(text), test=table(text)).sha256


def test_columns_of_lists_are_embeddings(tmp_path):
    numbers = np.random.default_rng(0).normal(size=(30, 4))
    frame = pl.DataFrame({"id": np.arange(30), "e": numbers.tolist(), "label": ["u", "v", "w"] * 10})
    frame.write_parquet(tmp_path / "a.parquet")
    data = load(tmp_path / "a.parquet")
    assert data.features.names == ("e[0]", "e[1]", "e[2]", "e[3]")
    assert (data.features.numeric == numbers).all()
    frame.with_columns(e=pl.Series([[0.0] * (i % 2 + 1) for i in range(30)])).write_parquet(
        tmp_path / "b.parquet"
    )
    with pytest.raises(ValueError, match=r"column 'e' has type List\(Float64\); expected numbers, text"):
        load(tmp_path / "b.parquet")


def test_what_is_no_parquet_file(tmp_path, table):
    with pytest.raises(ValueError, match=r"wrong.parquet is no Parquet file"):
        load(table(BASE, "wrong.parquet"))
    with pytest.raises(ValueError, match=r"none\.parquet: no such file"):
        load(tmp_path / "none.parquet")


def test_read_table_gives_columns(table):
    found, rows = read_table(table(BASE))
    assert rows == 40
    assert list(found.columns) == ["a", "b", "class"]


def test_the_page_for_users_runs():
    page = Path(__file__).parent.parent / "docs" / "data.md"
    assert doctest.testfile(str(page), module_relative=False) == (0, 14)
