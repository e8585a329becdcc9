"""Arrays, tensors and frames give the data set that the same table would give."""

import ast
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import infoloss.data
from infoloss.data import from_arrays, load

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
Y = np.arange(60) % 3


class Frame:
    """The part of pandas.DataFrame that is used: columns, [], len; its NA compares to NA."""

    class NAType:
        def __eq__(self, other):
            return self

        __ne__ = __eq__

        def __bool__(self):
            raise TypeError("boolean value of NA is ambiguous")

        __hash__ = None

    def __init__(self, columns):
        self.data = columns
        self.columns = list(columns)

    def __getitem__(self, name):
        values = [self.NAType() if value is None else value for value in self.data[name]]
        return np.array(values, dtype=object)

    def __len__(self):
        return len(self.data[self.columns[0]])


def test_tensors_are_arrays():
    tensor = torch.tensor(X, requires_grad=True)
    assert from_arrays(tensor, torch.tensor(Y)).sha256 == from_arrays(X, Y).sha256
    half = tensor.to(torch.bfloat16)
    assert from_arrays(half, Y).sha256 == from_arrays(half.detach().float().numpy(), Y).sha256


def test_labels_of_every_kind():
    for labels in (Y.tolist(), Y.astype(float), Y[:, None], pl.Series(Y), Y.astype(np.uint8)):
        assert from_arrays(X, labels).sha256 == from_arrays(X, Y).sha256
    assert from_arrays(X, Y > 0).classes == ("False", "True")
    text = from_arrays(X, np.array(["b", "a", "c"])[Y])
    assert text.classes == ("a", "b", "c")
    assert text.target[:3].tolist() == [1, 0, 2]
    assert from_arrays(X, np.array([10, 2, -1])[Y]).classes == ("-1", "2", "10")


def test_frames_equal_the_file(tmp_path):
    frame = pl.DataFrame(
        {
            "a": X[:, 0].astype(float),
            "colour": [None if i == 7 else ("red", "blue")[i % 2] for i in range(60)],
            "count": [None if i == 3 else i % 5 for i in range(60)],
            "class": np.array(["u", "v", "w"])[Y],
        }
    )
    path = tmp_path / "table.csv"
    frame.write_csv(path)
    expected = load(path)
    duck = Frame({name: frame[name].to_list() for name in frame.columns})
    for found in (from_arrays(frame, "class"), from_arrays(frame), from_arrays(duck, "class")):
        assert found.sha256 == expected.sha256
        assert found.split(0).sha256 == expected.split(0).sha256
        assert found.notes == expected.notes
    apart = from_arrays(frame.drop("class"), frame["class"])
    assert apart.sha256 == expected.sha256


def test_columns_of_a_frame_have_roles_by_name():
    frame = pl.DataFrame({"g": np.arange(60) // 2, "w": np.ones(60), "a": X[:, 0], "y": Y})
    data = from_arrays(frame, "y", groups="g", sample_weight="w")
    assert data.features.names == ("a",)
    assert data.sha256 == from_arrays(frame[["a"]], Y, groups=frame["g"], sample_weight=frame["w"]).sha256
    with pytest.raises(ValueError, match=r"no column 'gg'; did you mean 'g'\?"):
        from_arrays(frame, "y", groups="gg")


def test_test_rows_come_last():
    data = from_arrays(X[:45], Y[:45], test=(X[45:], Y[45:]))
    assert data.split(3).test.tolist() == list(range(45, 60))
    sides = ["train"] * 45 + ["test"] * 15
    assert data.sha256 == from_arrays(X, Y, split=sides).sha256
    frame = pl.DataFrame({"a": X[:, 0], "t": [f"k{y}" for y in Y], "y": Y})
    both = from_arrays(frame[:45], "y", test=(frame[45:], None))
    assert both.sha256 == from_arrays(frame, "y", split=sides).sha256


def test_row_numbers_in_a_bare_matrix_are_kept():
    # Nothing but the name tells a counter from a measurement, and a matrix has no names.
    assert from_arrays(np.arange(60.0)[:, None], Y).features.names == ("x0",)


INFINITE = X.copy()
INFINITE[5, 2] = np.inf
ERRORS = {
    "length": ((X, Y[:50]), {}, r"y has 50 entries, X has 60 rows; expected as many"),
    "weights": ((X, Y), {"sample_weight": np.ones(3)}, r"sample_weight has 3 entries, X has 60 rows"),
    "flat X": ((X[:, 0], Y), {}, r"X has shape \(60,\); expected \(rows, features\)"),
    "no rows": ((X[:0], Y[:0]), {}, r"X has shape \(0, 3\); expected rows and features"),
    "one-hot y": ((X, np.eye(3)[Y]), {}, r"y has shape \(60, 3\); expected \(60,\)"),
    "nan label": ((X, np.where(Y == 1, np.nan, Y)), {}, r"y has 20 missing labels .* first in row 1"),
    "infinite": ((INFINITE, Y), {}, r"column 'x2' is infinite in row 5"),
    "continuous": ((X, X[:, 0]), {}, r"y has 60 distinct numbers; infoloss compares classification losses"),
    "names as labels": ((X, [f"n{i}" for i in range(60)]), {}, r"60 distinct labels in 60 rows"),
    "single class": ((X, Y * 0), {}, r"single class '0'"),
    "constant": ((X * 0, Y), {}, r"no feature is left to learn from: dropped, one value in all rows: x0"),
    "negative weight": (
        (X, Y),
        {"sample_weight": np.where(Y == 2, -1.0, 1)},
        r"sample weight of row 2 .* is -1.0; expected a finite number",
    ),
    "nan weight": ((X, Y), {"sample_weight": np.full(60, np.nan)}, r"sample weight of row 0 .* is nan"),
    "named column": ((X, "class"), {}, r"y='class' names a column, but X is no data frame"),
    "test width": ((X, Y), {"test": (X[:, :2], Y)}, r"a row of X has shape \(3,\), of the test X \(2,\)"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_say_what_is_wrong(case):
    arguments, options, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        from_arrays(*arguments, **options)


def test_text_needs_a_frame():
    with pytest.raises(TypeError, match="data frame for text columns"):
        from_arrays(np.array([["a", "b"]] * 60), Y)


def test_data_modules_do_not_import_torch():
    for path in Path(infoloss.data.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torch" for name in names), path.name
