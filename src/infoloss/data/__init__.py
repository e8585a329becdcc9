"""What can be learnt from: tables, arrays, images, texts, known data sets; and how rows are split."""

from infoloss.data.altering import altered
from infoloss.data.arrays import from_arrays
from infoloss.data.collected import Collection, collection
from infoloss.data.dataset import Arrays, Dataset
from infoloss.data.known import KNOWN, KnownSet, known_sets
from infoloss.data.sources import load
from infoloss.data.splits import Split
from infoloss.data.tables import Table, read_table

__all__ = [
    "KNOWN",
    "Arrays",
    "Collection",
    "Dataset",
    "KnownSet",
    "Split",
    "Table",
    "altered",
    "collection",
    "from_arrays",
    "known_sets",
    "load",
    "read_table",
]
