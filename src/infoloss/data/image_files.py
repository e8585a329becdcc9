"""Data sets from image files: a folder or a zip archive with one folder a class."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from infoloss.data.assembly import dataset
from infoloss.data.columns import categorical
from infoloss.data.dataset import Dataset
from infoloss.data.images import images
from infoloss.data.memory import filled
from infoloss.data.names import counted
from infoloss.data.parts import part, used
from infoloss.data.roles import Roles
from infoloss.data.tables import SUFFIXES as TABLES
from infoloss.data.trees import Tree, tree

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["IMAGE_SIZE", "SUFFIXES", "ImageFile", "decoded", "from_image_files", "resized"]

IMAGE_SIZE = 64
"""Pixels a side that image files are brought to, unless told otherwise."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")

_GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
_ANNOTATIONS = "val/val_annotations.txt"


@dataclass(frozen=True)
class ImageFile:
    """A file, the class it shows and the part it belongs to, if that is given."""

    name: str
    label: str
    part: str | None


def from_image_files(path: Path, *, image_size: int | None = None, split: str | None = None) -> Dataset:
    """A data set from a folder or zip archive of images.

    Args:
        path: with one folder a class; or with train/, test/ and perhaps val/ above them (without test/, the
            images of val/ test). The layout of Tiny-ImageNet, with its list of labels in val/, is known too.
        image_size: pixels a side, `IMAGE_SIZE` unless given: the longer side is cropped to a square around
            the middle, then the image is resized (bilinear).
        split: fractions, as in `load`; two, of train and validation, where test images are given.

    Raises:
        ValueError: no image, an image outside the folders or one that cannot be read; classes that the
            training images lack.
    """
    files, notes = _laid_out(tree(path), path)
    size = IMAGE_SIZE if image_size is None else image_size
    pixels, depth = decoded(tree(path), [file.name for file in files], size=size, place=str(path))
    found, said = images(pixels)
    roles = Roles(
        target=categorical([file.label for file in files]),
        target_name="the class folder",
        parts=None if files[0].part is None else categorical([file.part for file in files]),
        fractions=split,
    )
    square = f"images are cropped to squares around the middle and resized to {size} × {size} pixels"
    name = path.resolve().name.removesuffix(".zip")
    return dataset(name, found, roles, source=path.resolve().name, notes=(*notes, square, *depth, *said))


def _laid_out(files: Tree, path: Path) -> tuple[list[ImageFile], tuple[str, ...]]:
    """The images with class and part, and notes."""
    names = [PurePosixPath(name) for name in files.files if _is_image(name)]
    if not names:
        tables = [name for name in files.files if name.lower().endswith(TABLES) and "/" not in name]
        hint = f" (of its tables, name one: {path / min(tables)})" if tables else ""
        raise ValueError(
            f"{path} holds no image; expected one folder a class with {', '.join(SUFFIXES)}{hint}"
        )
    root = _root(names)
    inner = {name: name.relative_to(root) for name in names}
    others = _others(files)
    if not all(part(each.parts[0]) for each in inner.values()):
        return [ImageFile(str(name), _first(each, path), None) for name, each in inner.items()], others
    annotated = str(root / _ANNOTATIONS)
    if annotated in files.files:
        return _tiny_imagenet(inner, _annotations(files.read(annotated)), path)
    found, notes = _of_parts(
        [
            ImageFile(str(name), _first(each.relative_to(each.parts[0]), path), part(each.parts[0]))
            for name, each in inner.items()
        ],
        path,
    )
    return found, (*notes, *others)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any(each.startswith((".", "__MACOSX")) for each in name.split("/"))


def _others(files: Tree) -> tuple[str, ...]:
    """A note on files of another kind, which may be all that a class has."""
    found = [name for name in files.files if not (_is_image(name) or _is_hidden(name))]
    if not found:
        return ()
    return (f"left out, no image by its name: {counted(len(found), 'file')}, such as {found[0]}",)


def _root(names: Sequence[PurePosixPath]) -> PurePosixPath:
    """The folder that the classes or parts stand in: archives often hold one folder around everything."""
    root = PurePosixPath()
    inner = list(names)
    while len({each.parts[0] for each in inner}) == 1 and all(len(each.parts) > 2 for each in inner):
        root /= inner[0].parts[0]
        inner = [each.relative_to(each.parts[0]) for each in inner]
    return root


def _first(inner: PurePosixPath, path: Path) -> str:
    if len(inner.parts) < 2:
        raise ValueError(f"{path}: the image {inner} stands in no class folder; expected CLASS/{inner}")
    return inner.parts[0]


def _of_parts(files: list[ImageFile], path: Path) -> tuple[list[ImageFile], tuple[str, ...]]:
    roles, notes = used({file.part for file in files if file.part is not None})
    learnt = {file.label for file in files if file.part == "train"}
    unknown = [file for file in files if file.label not in learnt]
    if unknown:
        raise ValueError(
            f"{path}: {unknown[0].name} is of class {unknown[0].label!r}, which no training image has"
        )
    return [ImageFile(file.name, file.label, roles[file.part or ""]) for file in files], notes


def _tiny_imagenet(
    inner: dict[PurePosixPath, PurePosixPath], labels: dict[str, str], path: Path
) -> tuple[list[ImageFile], tuple[str, ...]]:
    files = []
    for name, each in inner.items():
        where = part(each.parts[0])
        if where == "train":
            files.append(ImageFile(str(name), each.parts[1], where))
        elif where == "validation":
            if each.name not in labels:
                raise ValueError(f"{path}: {_ANNOTATIONS} has no label for {each.name}")
            files.append(ImageFile(str(name), labels[each.name], where))
    found, notes = _of_parts(files, path)
    unlabelled = len(inner) - len(files)
    return found, notes + (
        (f"{unlabelled} test images have no labels and are left out",) if unlabelled else ()
    )


def _annotations(text: bytes) -> dict[str, str]:
    return dict(line.split("\t")[:2] for line in text.decode().splitlines() if line.strip())


def decoded(
    files: Tree, names: Sequence[str], *, size: int, place: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(N, C, size, size) uint8, C = 1 where all images are grey, else 3; perhaps a memory map. And notes.

    Args:
        files: where they are.
        names: which, in this order.
        size: pixels a side.
        place: what messages call ``files``.

    Raises:
        ValueError: a file that is no image.
    """
    _pillow()
    modes = _modes(files, names, place)
    channels = 1 if modes <= set(_GREY) else 3
    about = [[name, *files.files[name]] for name in names]
    key = hashlib.sha256(json.dumps([about, size, channels]).encode()).hexdigest()[:32]

    def fill(values: np.ndarray) -> None:
        with ThreadPoolExecutor() as pool:
            pixels = pool.map(lambda name: _pixels(files, name, size, channels, place), names)
            for row, found in enumerate(pixels):
                values[row] = found

    deep = "16-bit images keep their upper 8 bits: 0 to 65535 becomes 0 to 255"
    notes = (deep,) if any(mode.startswith("I") for mode in modes) else ()
    return filled((len(names), channels, size, size), fill, key=key), notes


def resized(values: np.ndarray, size: int) -> np.ndarray:
    """(N, C, size, size) of (N, C, H, W) bytes, as `decoded` would; the same where they have this size."""
    if values.shape[2:] == (size, size):
        return values
    _pillow()
    from PIL import Image

    out = np.empty((*values.shape[:2], size, size), np.uint8)
    for row, image in enumerate(values):
        for channel, plane in enumerate(image):
            out[row, channel] = _square(Image.fromarray(np.ascontiguousarray(plane)), size)
    return out


def _pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ModuleNotFoundError:
        raise ModuleNotFoundError("reading images needs Pillow: pip install 'infoloss[study]'") from None


def _opened(files: Tree, name: str, place: str) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    unreadable = f"{place}: {name} is no image that can be read"
    try:
        image = Image.open(io.BytesIO(files.read(name)))
    except UnidentifiedImageError:  # its message shows an object
        raise ValueError(f"{unreadable}: its content is of no known format") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{unreadable}: {error}") from None
    if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
        numbers = "floating-point numbers" if image.mode == "F" else "32-bit numbers"
        raise ValueError(f"{unreadable}: it holds {numbers}; expected 8 or 16 bits, or arrays (.npz)")
    return image


def _modes(files: Tree, names: Sequence[str], place: str) -> set[str]:
    modes, wrong = set(), []
    for name in names:
        try:
            modes.add(_opened(files, name, place).mode)
        except ValueError as error:
            wrong.append(str(error))
    if wrong:
        others = f" (and {counted(len(wrong) - 1, 'more file')})" if len(wrong) > 1 else ""
        raise ValueError(f"{wrong[0]}{others}")
    return modes


def _pixels(files: Tree, name: str, size: int, channels: int, place: str) -> np.ndarray:
    """(channels, size, size)."""
    from PIL import ImageOps

    image = _opened(files, name, place)
    try:
        upright = ImageOps.exif_transpose(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{place}: {name} is damaged: {error}") from None
    pixels = np.asarray(_square(_eight_bits(upright).convert("L" if channels == 1 else "RGB"), size))
    return pixels[None] if channels == 1 else np.moveaxis(pixels, -1, 0)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Pillow would cut the numbers of 16-bit images at 255."""
    from PIL import Image

    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))


def _square(image: Image.Image, size: int) -> Any:
    from PIL import Image, ImageOps

    return ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
