"""Known sets of images: what they are, where they lie, and where they can be had."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from infoloss.data.dataset import Dataset
from infoloss.data.downloads import Download, data_folder, downloaded
from infoloss.data.image_files import from_image_files
from infoloss.data.readers import read_cifar10, read_cifar100, read_idx, read_omniglot

__all__ = ["OFFICIAL", "Official", "found", "from_official"]

Read = Callable[..., Dataset]


@dataclass(frozen=True)
class Official:
    """A known set.

    Args:
        about: what it is and who made it.
        terms: under which it is given.
        places: folders or archives below the data folder where it may lie; downloads go to the first, or
            beside it where it is a file or comes out of an archive.
        needs: files, by patterns, all of which a folder must hold.
        downloads: its files.
        read: from a place, with the options ``image_size`` and ``split``.
    """

    about: str
    terms: str
    places: tuple[str, ...]
    needs: tuple[str, ...]
    downloads: tuple[Download, ...]
    read: Read

    @property
    def kept_in(self) -> Path:
        """The folder that downloads go to."""
        first = data_folder() / self.places[0]
        comes_out = any(file.name.endswith((".zip", ".tar.gz")) for file in self.downloads)
        return first.parent if comes_out else first


def found(name: str) -> Path | None:
    """Where a known set lies, if it does."""
    official = OFFICIAL[name]
    for place in official.places:
        path = data_folder() / place
        if path.is_file() or all(next(path.glob(pattern), None) is not None for pattern in official.needs):
            return path
    return None


def from_official(name: str, *, image_size: int | None = None, split: str | None = None) -> Dataset:
    """A known set, downloaded unless it is there.

    Args:
        name: a key of `OFFICIAL`.
        image_size: pixels a side, if not its own.
        split: "0.8/0.2", how the rows that do not test train and validate; of Omniglot, which has no test
            rows, three fractions.

    Raises:
        OSError: it is not there and cannot be downloaded.
        ValueError: a file that is not what it should be.
    """
    official = OFFICIAL[name]
    if found(name) is None:
        downloaded(official.downloads, official.kept_in)
    path = found(name)
    if path is None:
        raise OSError(f"{name}: {official.kept_in} lacks some of {', '.join(official.needs)}")
    made = official.read(path, image_size=image_size, split=split)
    return replace(made, name=name, source=f"{official.about} ({official.terms})")


_MNIST_FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
_FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag")
_EMNIST_MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"
_EMNIST = {
    "byclass": (string.digits + string.ascii_uppercase + string.ascii_lowercase, 0),
    "bymerge": (_EMNIST_MERGED, 0),
    "balanced": (_EMNIST_MERGED, 0),
    "letters": (string.ascii_uppercase, 1),
    "digits": (string.digits, 0),
    "mnist": (string.digits, 0),
}
"""Parts of EMNIST: characters in the order of their labels, and the first label."""


def _mnist_like(md5: Sequence[str], sites: Sequence[str]) -> tuple[Download, ...]:
    return tuple(
        Download(f"{file}-ubyte.gz", each, tuple(f"{site}{file}-ubyte.gz" for site in sites))
        for file, each in zip(_MNIST_FILES, md5, strict=True)
    )


def _emnist(part: str) -> Official:
    characters, first = _EMNIST[part]
    sites = ("https://biometrics.nist.gov/cs_links", "https://www.itl.nist.gov/iaui/vip/cs_links")
    mirrors = tuple(f"{site}/EMNIST/gzip.zip" for site in sites)
    return Official(
        about=f"EMNIST {part}, Cohen et al. 2017",
        terms="none stated; cite the paper",
        places=("gzip.zip", "EMNIST/raw", "EMNIST/raw/gzip", "emnist", "gzip"),
        needs=tuple(
            f"emnist-{part}-{which}-{kind}-ubyte*"
            for which in ("train", "test")
            for kind in ("images-idx3", "labels-idx1")
        ),
        downloads=(Download("gzip.zip", "58c8d27c78d21e728a6bc7b3cc06412e", mirrors),),
        read=partial(read_idx, prefix=f"emnist-{part}-", test="test", names=characters, first=first),
    )


def _cifar(
    number: int, folder: str, md5: str, needs: tuple[str, ...], read: Read, labels: str = ""
) -> Official:
    file = f"cifar-{number}-binary.tar.gz"
    sites = ("https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/")
    return Official(
        about=f"CIFAR-{number}{labels}, Krizhevsky 2009",
        terms="none stated; cite the report",
        places=(folder,),
        needs=needs,
        downloads=(Download(file, md5, tuple(site + file for site in sites)),),
        read=read,
    )


def _cifar100(coarse: bool) -> Official:
    read = partial(read_cifar100, coarse=coarse)
    labels = ", its 20 coarse labels" if coarse else ""
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    return _cifar(100, "cifar-100-binary", md5, ("train.bin", "test.bin"), read, labels)


def _omniglot(part: str, md5: str) -> Official:
    file = f"images_{part}.zip"
    sites = (
        "https://github.com/brendenlake/omniglot/raw/master/python/",
        "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/",
    )
    return Official(
        about=f"Omniglot, the {part} alphabets, Lake et al. 2015",
        terms="MIT",
        places=(f"images_{part}.zip", f"omniglot/images_{part}", f"omniglot-py/images_{part}"),
        needs=("*/*/*.png",),
        downloads=(Download(file, md5, tuple(site + file for site in sites)),),
        read=read_omniglot,
    )


OFFICIAL: Mapping[str, Official] = {
    "mnist": Official(
        about="MNIST, LeCun, Cortes & Burges 1998",
        terms="commonly given as CC BY-SA 3.0",
        places=("MNIST/raw", "mnist", "MNIST"),
        needs=tuple(f"{file}-ubyte*" for file in _MNIST_FILES),
        downloads=_mnist_like(
            (
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
                "9fb629c4189551a2d022fa330f9573f3",
                "ec29112dd5afa0611ce80d1b7f02629c",
            ),
            (
                "https://ossci-datasets.s3.amazonaws.com/mnist/",
                "https://storage.googleapis.com/cvdf-datasets/mnist/",
            ),
        ),
        read=partial(read_idx, prefix="", test="t10k", names=string.digits),
    ),
    "fashion_mnist": Official(
        about="Fashion-MNIST, Xiao, Rasul & Vollgraf 2017",
        terms="MIT, (c) 2017 Zalando SE",
        places=("FashionMNIST/raw", "fashion_mnist", "fashion-mnist", "FashionMNIST"),
        needs=tuple(f"{file}-ubyte*" for file in _MNIST_FILES),
        downloads=_mnist_like(
            (
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
                "bef4ecab320f06d8554ea6380940ec79",
                "bb300cfdad3c16e7a12a480ee83cd310",
            ),
            (
                "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            ),
        ),
        read=partial(read_idx, prefix="", test="t10k", names=(*_FASHION, "Ankle boot")),
    ),
    **{f"emnist_{part}": _emnist(part) for part in _EMNIST},
    "cifar10": _cifar(
        10,
        "cifar-10-batches-bin",
        "c32a1d4ab5d03f1284b67883e8d87530",
        (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
        read_cifar10,
    ),
    "cifar100": _cifar100(coarse=False),
    "cifar100_coarse": _cifar100(coarse=True),
    "tiny_imagenet": Official(
        about="Tiny-ImageNet, 200 classes of ImageNet at 64 × 64, Stanford CS231n",
        terms="ImageNet's: non-commercial research and education",
        places=("tiny-imagenet-200.zip", "tiny-imagenet-200"),
        needs=("wnids.txt",),
        downloads=(
            Download(
                "tiny-imagenet-200.zip",
                "90528d7ca1a48142e341f4ef8d21d0de",
                ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            ),
        ),
        read=from_image_files,
    ),
    "omniglot_background": _omniglot("background", "68d2efa1b9178cc56df9314c21c6e718"),
    "omniglot_evaluation": _omniglot("evaluation", "6b91aef0f799c5bb55b94e3f2daec811"),
}
"""Known sets by name."""
