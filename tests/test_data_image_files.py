"""Images from folders and archives: layouts, decoding, memory maps, and errors."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import infoloss.data.memory
from infoloss.data import load

RNG = np.random.default_rng(0)


def png(values: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def noise(height: int = 9, width: int = 9, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def written(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


PIXELS = {f"{label}/{i}.png": noise() for i in range(5) for label in ("cat", "dog", "eel")}
FILES = {name: png(values) for name, values in PIXELS.items()}


def test_a_folder_a_class(tmp_path):
    data = load(written(tmp_path / "pets", FILES), image_size=9)
    assert (data.name, data.source, data.input_shape) == ("pets", "pets", (3, 9, 9))
    assert data.classes == ("cat", "dog", "eel")
    found = data.arrays(data.split(0)).features
    assert found.dtype == np.uint8
    for row, name in enumerate(sorted(PIXELS)):
        assert data.classes[data.target[row]] == name.split("/")[0]
        assert (found[row] == np.moveaxis(PIXELS[name], -1, 0)).all()


@pytest.mark.parametrize("around", ["", "images/", "a/b/"])
def test_archives_and_folders_around_are_the_same(tmp_path, around):
    expected = load(written(tmp_path / "pets", FILES), image_size=9).sha256
    files = {around + name: content for name, content in FILES.items()}
    assert load(written(tmp_path / "other", files), image_size=9).sha256 == expected
    clutter = {"__MACOSX/cat/._0.png": b"", around + "cat/.hidden.png": b"", around + "readme.txt": b"words"}
    assert load(zipped(tmp_path / "pets.zip", files | clutter), image_size=9).sha256 == expected


def test_folders_of_parts(tmp_path):
    files = {f"{part}/{name}": png(noise()) for part in ("train", "val", "test") for name in PIXELS}
    data = load(written(tmp_path / "pets", files), image_size=9)
    split = data.split(3)
    assert not data.resampled
    assert [len(split.train), len(split.validation), len(split.test)] == [15, 15, 15]
    names = sorted(files)
    assert {names[row].split("/")[0] for row in split.test} == {"test"}
    without = {name: content for name, content in files.items() if not name.startswith("test")}
    data = load(zipped(tmp_path / "pets.zip", without), image_size=9)
    assert len(data.split(0).test) == 15
    assert len(data.split(0).validation) < 15
    assert data.notes[0].startswith("there are no test rows")
    with pytest.raises(ValueError, match="the data say themselves which rows train, validate"):
        load(tmp_path / "pets", split="0.8/0.2")
    assert len(load(tmp_path / "pets.zip", image_size=9, split="0.4/0.6").split(0).validation) == 9


def test_the_layout_of_tiny_imagenet(tmp_path):
    names = ("n01", "n02", "n03")
    files = {f"train/{w}/images/{w}_{i}.JPEG": png(noise(), "JPEG") for w in names for i in range(4)}
    files |= {f"val/images/val_{i}.JPEG": png(noise(), "JPEG") for i in range(6)}
    lines = [f"val_{i}.JPEG\t{names[(i + 1) % 3]}\t0\t0\t8\t8" for i in range(6)]
    files |= {"val/val_annotations.txt": "\n".join(lines).encode()}
    files |= {"test/images/test_0.JPEG": png(noise(), "JPEG")}
    data = load(written(tmp_path / "tiny-imagenet", files), image_size=9)
    split = data.split(0)
    assert [data.classes[data.target[row]] for row in split.test] == [names[(i + 1) % 3] for i in range(6)]
    assert any(note == "1 test images have no labels and are left out" for note in data.notes)
    del files["val/val_annotations.txt"]
    with pytest.raises(ValueError, match="is of class 'images', which no training image has"):
        load(zipped(tmp_path / "no_list.zip", files))


def test_images_are_cropped_to_the_middle_and_resized(tmp_path):
    wide = noise(8, 24)
    files = FILES | {"cat/0.png": png(wide), "cat/1.png": png(wide.swapaxes(0, 1).copy())}
    data = load(written(tmp_path / "pets", files), image_size=8)
    found = data.features.encoded(np.arange(1))
    middle = np.moveaxis(wide[:, 8:16], -1, 0)
    assert (found[0] == middle).all()
    assert (found[1] == middle.swapaxes(1, 2)).all()
    assert "images are cropped to squares around the middle and resized to 8 × 8 pixels" in data.notes
    assert load(tmp_path / "pets").input_shape == (3, 64, 64)


def test_shrinking_averages(tmp_path):
    board = np.tile(np.array([[0, 200], [200, 0]], np.uint8), (8, 8))  # 16 × 16, black and light in turn
    files = {name: png(board) for name in FILES} | {"eel/4.png": png(board // 2)}
    data = load(written(tmp_path / "boards", files), image_size=4)
    found = data.features.encoded(np.arange(1))[0, 0].astype(int)
    assert (abs(found - 100) < 15).all()


def test_grey_images_have_one_channel_and_colour_turns_all_to_three(tmp_path):
    deep = (RNG.integers(0, 65536, (9, 9))).astype(np.uint16)
    grey = {name: png(noise(channels=1)) for name in FILES} | {"cat/0.png": png(deep)}
    data = load(written(tmp_path / "grey", grey), image_size=9)
    assert data.input_shape == (1, 9, 9)
    assert (data.features.encoded(np.arange(1))[0, 0] == deep // 256).all()
    data = load(written(tmp_path / "both", grey | {"eel/4.png": FILES["eel/4.png"]}), image_size=9)
    found = data.features.encoded(np.arange(1))
    assert (found[1, 0] == found[1, 2]).all()
    assert (found[-1, 0] != found[-1, 2]).any()


def test_the_camera_was_held_upright(tmp_path):
    values = noise()
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera's right side was up
    Image.fromarray(values).save(turned, "PNG", exif=exif)
    data = load(written(tmp_path / "pets", FILES | {"cat/0.png": turned.getvalue()}), image_size=9)
    found = data.features.encoded(np.arange(1))[0]
    assert (found == np.moveaxis(np.rot90(values, -1), -1, 0)).all()


def test_large_sets_are_mapped_and_decoded_once(tmp_path, monkeypatch):
    folder = written(tmp_path / "pets", FILES)
    expected = load(folder, image_size=9)
    monkeypatch.setenv("INFOLOSS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(infoloss.data.memory, "LARGEST_IN_MEMORY", 1000)
    data = load(folder, image_size=9)
    values = data.arrays(data.split(0)).features
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable
    assert data.arrays(data.split(0)).file == next((tmp_path / "cache/images").iterdir())
    assert infoloss.data.memory.mapped_file(values[1:]) is None
    assert expected.arrays(expected.split(0)).file is None
    assert data.sha256 == expected.sha256
    monkeypatch.setattr("infoloss.data.image_files._pixels", None)
    assert load(folder, image_size=9).sha256 == expected.sha256
    (folder / "cat/0.png").write_bytes(png(noise()))
    with pytest.raises(TypeError):
        load(folder, image_size=9)
    assert len(list((tmp_path / "cache/images").iterdir())) == 1


def test_what_is_no_image_and_what_is_lost_of_deep_ones_is_said(tmp_path):
    files = FILES | {"dog/5.heic": b"", "fox/0.heic": b"", ".hidden": b""}
    assert (
        "left out, no image by its name: 2 files, such as dog/5.heic"
        in load(written(tmp_path / "a", files)).notes
    )
    deep = {f"{label}/{i}.png": png(np.full((9, 9), 3000 * i, np.uint16)) for i in range(5) for label in "ab"}
    data = load(written(tmp_path / "b", deep), image_size=9)
    assert "16-bit images keep their upper 8 bits: 0 to 65535 becomes 0 to 255" in data.notes
    assert sorted(set(data.arrays(data.split(0)).features.ravel())) == [3000 * i // 256 for i in range(5)]


WRONG = {
    "empty": ({"readme.txt": b"words"}, r"holds no image; expected one folder a class with \.png"),
    "tables": ({"a.csv": b"x,y", "b.tsv": b""}, r"holds no image.*\(of its tables, name one: .*a\.csv\)"),
    "broken": (
        FILES | {"cat/0.png": b"words", "dog/1.png": b"", "eel/1.png": b""},
        r"cat/0\.png is no image that can be read: its content is of no known format \(and 2 more files\)$",
    ),
    "floats": (FILES | {"cat/x.tif": png(np.ones((9, 9), np.float32), "TIFF")}, r"x\.tif .*floating-point"),
    "wide": (FILES | {"cat/x.tif": png(np.ones((9, 9), np.int32), "TIFF")}, r"x\.tif .* 32-bit numbers"),
    "cut": (FILES | {"cat/0.png": FILES["cat/0.png"][:-60]}, r"cat/0\.png is damaged"),
    "no folder": (FILES | {"0.png": FILES["cat/0.png"]}, r"the image 0\.png stands in no class folder"),
    "one class": ({"cat/0.png": FILES["cat/0.png"]}, "single class 'cat'"),
    "few": ({n: c for n, c in FILES.items() if n not in ("cat/0.png", "cat/1.png", "cat/2.png")}, "2 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_errors_say_what_is_wrong(tmp_path, case):
    files, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        load(written(tmp_path / "pets", files), image_size=9)


def test_no_archive(tmp_path):
    with pytest.raises(ValueError, match=r"a\.zip: no such file or folder"):
        load(tmp_path / "a.zip")
    (tmp_path / "a.zip").write_bytes(b"text")
    with pytest.raises(ValueError, match=r"a\.zip is no zip archive"):
        load(tmp_path / "a.zip")


def test_options_of_tables_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is a folder of images; it takes split, image_size"):
        load(written(tmp_path / "pets", FILES), target="y")
    with pytest.raises(ValueError, match="image_size=9: 'wine' is a set with fixed columns"):
        load("wine", image_size=9)
