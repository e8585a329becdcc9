"""Known sets of images, from small files in the official formats and, where they are, from the real ones."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infoloss.data import KNOWN, load
from infoloss.data.downloads import Download
from infoloss.data.official import OFFICIAL, found
from infoloss.data.readers import read_cifar100

RNG = np.random.default_rng(0)
real = pytest.mark.data


@pytest.fixture
def root(tmp_path, monkeypatch):
    """An empty folder of data; whatever is asked of the network fails the test."""
    monkeypatch.setenv("INFOLOSS_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("INFOLOSS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def idx(values: np.ndarray) -> bytes:
    shape = b"".join(size.to_bytes(4, "big") for size in values.shape)
    return bytes([0, 0, 8, values.ndim]) + shape + values.tobytes()


def images(rows: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (rows, *shape), dtype=np.uint8)


def mnist_like(folder: Path, *, prefix: str = "", test: str = "t10k", zipped: bool = True, first: int = 0):
    """Five training and two test rows of each of the labels; the files' arrays."""
    classes = 26 if "letters" in prefix else 10
    arrays = {}
    for which, each in ((prefix + "train", 5), (prefix + test, 2)):
        arrays[f"{which}-images-idx3-ubyte"] = images(each * classes, 28, 28)
        labels = np.repeat(np.arange(classes), each) if "letters" in prefix else np.arange(classes * each)
        arrays[f"{which}-labels-idx1-ubyte"] = (labels % classes + first).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in arrays.items():
        content = idx(values)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files(root, name, zipped):
    arrays = mnist_like(root / OFFICIAL[name].places[0], zipped=zipped)
    data = load(name)
    split = data.split(3)
    assert (data.name, data.source) == (name, KNOWN[name])
    assert len(data.classes) == 10
    assert [len(split.train), len(split.validation), len(split.test)] == [37, 13, 20]  # 3 to 1
    found = data.arrays(split)
    assert (found.features[split.test, 0] == arrays["t10k-images-idx3-ubyte"]).all()
    assert (data.target[split.test] == arrays["t10k-labels-idx1-ubyte"]).all()
    assert not set(split.train) & set(range(50, 70))


def test_the_official_order_of_classes_is_kept(root):
    mnist_like(root / "FashionMNIST/raw")
    assert load("fashion_mnist").classes[:3] == ("T-shirt/top", "Trouser", "Pullover")


def test_another_size_and_other_shares(root):
    mnist_like(root / "mnist")
    data = load("mnist", image_size=14, split="0.8/0.2")
    assert data.input_shape == (1, 14, 14)
    assert len(data.split(0).validation) == 10
    with pytest.raises(ValueError, match="has 3 fractions; expected 2"):
        load("mnist", split="0.6/0.2/0.2")


def test_letters_count_from_one_and_stand_upright(root):
    arrays = mnist_like(root / "EMNIST/raw", prefix="emnist-letters-", test="test", first=1)
    data = load("emnist_letters")
    assert data.classes == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert data.target[:6].tolist() == [0, 0, 0, 0, 0, 1]
    first = data.features.encoded(np.arange(1))[0, 0]
    assert (first == arrays["emnist-letters-train-images-idx3-ubyte"][0].T).all()


def test_an_archive_without_the_files(root):
    with zipfile.ZipFile(root / "gzip.zip", "w") as archive:
        archive.writestr("gzip/readme.txt", "words")
    with pytest.raises(ValueError, match="lacks the file emnist-digits-train-images-idx3-ubyte"):
        load("emnist_digits")


def test_emnist_is_read_from_its_archive(root):
    folder = root.parent / "made"
    for part in ("digits", "mnist"):
        mnist_like(folder, prefix=f"emnist-{part}-", test="test")
    with zipfile.ZipFile(root / "gzip.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"gzip/{path.name}")
    assert load("emnist_digits").sha256 != load("emnist_mnist").sha256


@pytest.mark.parametrize(("part", "classes"), [("byclass", 62), ("bymerge", 47), ("balanced", 47)])
def test_characters_of_emnist(part, classes):
    names = OFFICIAL[f"emnist_{part}"].read.keywords["names"]
    assert len(set(names)) == len(names) == classes


def cifar10(folder: Path) -> np.ndarray:
    """Six files of 20 rows; all records."""
    records = np.concatenate([np.arange(120)[:, None] % 10, images(120, 3072)], axis=1).astype(np.uint8)
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)] + ["test_batch.bin"]
    for name, rows in zip(names, np.split(records, 6), strict=True):
        (folder / name).write_bytes(rows.tobytes())
    (folder / "batches.meta.txt").write_text("".join(f"class{number}\n" for number in range(10)) + "\n")
    return records


def test_cifar10(root):
    records = cifar10(root / "cifar-10-batches-bin")
    data = load("cifar10")
    assert data.input_shape == (3, 32, 32)
    assert data.classes == tuple(f"class{number}" for number in range(10))
    assert data.split(0).test.tolist() == list(range(100, 120))
    assert (data.target == records[:, 0]).all()
    pixels = data.features.encoded(np.arange(1))
    # byte 1 + 1024·c + 32·y + x of a record is the pixel (c, y, x)
    assert pixels[7, 2, 5, 9] == records[7, 1 + 2 * 1024 + 5 * 32 + 9]


def test_cifar100_has_two_kinds_of_labels(root):
    folder = root / "cifar-100-binary"
    folder.mkdir()
    fine = np.arange(200) % 100
    records = np.column_stack([fine // 5, fine, images(200, 3072)]).astype(np.uint8)
    (folder / "train.bin").write_bytes(np.concatenate([records, records]).tobytes())
    (folder / "test.bin").write_bytes(records.tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(f"f{number}" for number in range(100)))
    (folder / "coarse_label_names.txt").write_text("\n".join(f"c{number}" for number in range(20)))
    assert load("cifar100").target.tolist() == fine.tolist() * 3
    assert load("cifar100").classes[99] == "f99"
    coarse = load("cifar100_coarse")
    assert (len(coarse.classes), coarse.target[99]) == (20, 19)


def test_omniglot(root):
    file = io.BytesIO()
    Image.fromarray(images(1, 105, 105)[0] > 127).save(file, "PNG")
    with zipfile.ZipFile(root / "images_evaluation.zip", "w") as archive:
        for alphabet in ("Angelic", "Ge_ez"):
            for character in ("character01", "character02"):
                for drawing in range(20):
                    name = f"images_evaluation/{alphabet}/{character}/0001_{drawing:02}.png"
                    archive.writestr(name, file.getvalue())
    data = load("omniglot_evaluation", image_size=28)
    assert data.classes[:2] == ("Angelic/character01", "Angelic/character02")
    assert data.input_shape == (1, 28, 28)
    assert data.resampled
    assert len(data.split(0).test) == 16


WRONG = {
    "magic": (b"\0\0\x0d\3", "begins with 00 00 0d 03; expected an idx file of unsigned bytes"),
    "short": (idx(images(5, 28, 28))[:-1], r"holds 3919 numbers; expected 5 × 28 × 28"),
    "rows": (idx(images(5, 28, 28)), "5 training images and 50 labels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_files_that_are_not_what_they_should_be(root, case):
    content, message = WRONG[case]
    mnist_like(root / "mnist", zipped=False)
    (root / "mnist/train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load("mnist")


def test_damaged_gzip_labels_outside_and_odd_sizes(root):
    mnist_like(root / "mnist")
    path = root / "mnist/train-labels-idx1-ubyte.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-12])
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz is damaged"):
        load("mnist")
    path.write_bytes(gzip.compress(idx(np.full(50, 10, np.uint8))))
    with pytest.raises(ValueError, match="the label 10 lies outside the 10 classes"):
        load("mnist")
    cifar10(root / "cifar-10-batches-bin")
    with (root / "cifar-10-batches-bin/test_batch.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"test_batch\.bin has 61461 bytes; expected a multiple of 3073"):
        load("cifar10")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server of the folder `served`."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()
        thread.join()


def offered(monkeypatch, name: str, server: str, folder: Path, *, spoilt: bool = False) -> None:
    """Lets a known set be downloaded from the server, whose first mirror never has it."""
    downloads = tuple(
        Download(
            file.name,
            hashlib.md5((folder / file.name).read_bytes() + b"x" * spoilt).hexdigest(),
            (f"{server}/nowhere/{file.name}", f"{server}/{file.name}"),
        )
        for file in OFFICIAL[name].downloads
    )
    changed = {**OFFICIAL, name: replace(OFFICIAL[name], downloads=downloads)}
    monkeypatch.setattr("infoloss.data.official.OFFICIAL", changed)


def test_what_is_absent_is_downloaded_once(root, server, monkeypatch, tmp_path):
    mnist_like(tmp_path / "served")
    offered(monkeypatch, "mnist", server, tmp_path / "served")
    assert found("mnist") is None
    data = load("mnist")
    assert found("mnist") == root / "MNIST/raw"
    assert len(list((root / "MNIST/raw").iterdir())) == 4
    for path in (tmp_path / "served").iterdir():
        path.unlink()
    assert load("mnist").sha256 == data.sha256


def test_a_download_that_was_cut_off_is_continued(root, server, monkeypatch, tmp_path):
    mnist_like(tmp_path / "served")
    offered(monkeypatch, "mnist", server, tmp_path / "served")
    expected = load("mnist").sha256
    (root / "MNIST/raw/t10k-labels-idx1-ubyte.gz").unlink()
    assert found("mnist") is None
    (tmp_path / "served/train-images-idx3-ubyte.gz").unlink()
    assert load("mnist").sha256 == expected


def test_archives_are_unpacked(root, server, monkeypatch, tmp_path):
    records = cifar10(tmp_path / "made/cifar-10-batches-bin")
    with tarfile.open(tmp_path / "served/cifar-10-binary.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made/cifar-10-batches-bin", "cifar-10-batches-bin")
    offered(monkeypatch, "cifar10", server, tmp_path / "served")
    assert (load("cifar10").target == records[:, 0]).all()
    assert (root / "cifar-10-batches-bin/test_batch.bin").is_file()


def test_a_wrong_checksum_keeps_nothing(root, server, monkeypatch, tmp_path):
    mnist_like(tmp_path / "served")
    offered(monkeypatch, "mnist", server, tmp_path / "served", spoilt=True)
    with pytest.raises(OSError, match="could not be downloaded; put it into") as told:
        load("mnist")
    assert "404" in str(told.value)
    assert "hash" in str(told.value)
    assert found("mnist") is None


# The real files, where they are


def real_or_skip(name: str) -> str:
    if "INFOLOSS_DATA" not in os.environ or found(name) is None:
        pytest.skip(f"INFOLOSS_DATA holds no {name}")
    return name


@real
@pytest.mark.parametrize(
    ("name", "rows", "classes", "mean", "deviation"),
    [
        # means and deviations of the training images as they are commonly given, in units of 255
        ("mnist", 70_000, 10, [0.1307], [0.3081]),
        ("fashion_mnist", 70_000, 10, [0.2860], [0.3530]),
        ("cifar10", 60_000, 10, [0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
    ],
)
def test_real_sets(name, rows, classes, mean, deviation):
    data = load(real_or_skip(name))
    test = 10_000
    assert (len(data.target), len(data.classes)) == (rows, classes)
    assert data.split(0).test.tolist() == list(range(rows - test, rows))
    channels = np.moveaxis(data.features.encoded(np.arange(1))[:-test], 1, 0)
    np.testing.assert_allclose([each.mean() / 255 for each in channels], mean, atol=6e-5)
    np.testing.assert_allclose([each.std() / 255 for each in channels], deviation, atol=6e-5)


@real
def test_real_omniglot():
    data = load(real_or_skip("omniglot_evaluation"), image_size=28)
    assert (len(data.target), len(data.classes)) == (13_180, 659)
    assert (np.bincount(data.target) == 20).all()


def folder_or_skip(name: str) -> Path:
    path = Path(os.environ.get("INFOLOSS_DATA", "nowhere")) / name
    if not path.is_dir():
        pytest.skip(f"INFOLOSS_DATA holds no {name}")
    return path


@real
def test_half_of_the_real_cifar100():
    path = folder_or_skip("cifar-100-binary-50")
    fine, coarse = read_cifar100(path), read_cifar100(path, coarse=True)
    assert (len(fine.target), len(fine.classes), len(coarse.classes)) == (30_000, 50, 19)
    names = {fine.classes[f]: coarse.classes[c] for f, c in zip(fine.target, coarse.target, strict=True)}
    assert (names["apple"], names["beaver"]) == ("fruit_and_vegetables", "aquatic_mammals")


@real
def test_a_tenth_of_the_real_tiny_imagenet():
    data = load(folder_or_skip("tiny-imagenet-20"))
    split = data.split(0)
    assert data.input_shape == (3, 64, 64)
    assert [len(split.train), len(split.validation), len(split.test)] == [7500, 2500, 1000]
    assert (np.bincount(data.target[split.test]) == 50).all()
