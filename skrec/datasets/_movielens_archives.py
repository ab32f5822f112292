"""The official MovieLens archives and the parsers of their files."""

import csv
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._compact import check_range

SPLITS = ("u1", "u2", "u3", "u4", "u5")

_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
_CHUNK = 1_000_000  # ratings parsed at a time, to bound the memory of the parser
# A few titles end in "(V)", straight to video, after the year.
_TITLE_AND_YEAR = re.compile(r"^(?P<title>.*?)\s*\((?P<year>\d{4})\)\s*(?:\(V\))?$")
_GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


class Archive(NamedTuple):
    """A published zip file."""

    name: str  # of the zip file, without suffix, and of the cache folder
    folder: str  # inside the zip file
    layout: str  # a key of _LAYOUTS
    encoding: str
    # The published checksum. None for the development set "latest-small", which
    # changes from time to time.
    md5: str | None


class _Layout(NamedTuple):
    ratings: str
    ratings_options: dict[str, Any]
    items: str


ARCHIVES = {
    "100k": Archive(
        "ml-100k", "ml-100k", "u", "latin-1", "0e33842e24a9c977be4e0107933c0723"
    ),
    "1m": Archive(
        "ml-1m", "ml-1m", "dat", "latin-1", "c4d9eecfca2ab87c1945afe126590906"
    ),
    "10m": Archive(
        "ml-10m", "ml-10M100K", "dat", "utf-8", "ce571fd55effeba0271552578f2648bd"
    ),
    "latest-small": Archive("ml-latest-small", "ml-latest-small", "csv", "utf-8", None),
    "25m": Archive(
        "ml-25m", "ml-25m", "csv", "utf-8", "6b51fb2759a8657d3bfcbfc42b592ada"
    ),
    "32m": Archive(
        "ml-32m", "ml-32m", "csv", "utf-8", "d472be332d4daa821edc399621853b57"
    ),
}

_LAYOUTS = {
    "u": _Layout("u.data", {"sep": "\t", "header": None}, "u.item"),
    # pandas' fast parser only supports separators of one character, so "::" is read as
    # ":" followed by an empty column.
    "dat": _Layout(
        "ratings.dat",
        {"sep": ":", "header": None, "usecols": [0, 2, 4, 6]},
        "movies.dat",
    ),
    "csv": _Layout("ratings.csv", {"header": 0}, "movies.csv"),
}


def parse_ratings(members: zipfile.ZipFile, archive: Archive) -> dict[str, Any]:
    """Read the columns of the ratings file, in the smallest lossless types.

    Raises KeyError or ValueError if the archive is not in the expected format.
    """
    layout = _LAYOUTS[archive.layout]
    options = {"usecols": [0, 1, 2, 3], **layout.ratings_options}
    types = {"user": "int32", "item": "int32", "rating": "float32"}
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _RATING_COLUMNS}
    with members.open(f"{archive.folder}/{layout.ratings}") as file:
        chunks = pd.read_csv(
            file,
            names=list(_RATING_COLUMNS),
            dtype=types | {"timestamp": "int64"},
            chunksize=_CHUNK,
            **options,
        )
        for chunk in chunks:
            if chunk.empty:
                raise ValueError(f"{layout.ratings} has no ratings")
            for name, parts in columns.items():
                compact = _compact_ratings if name == "rating" else _compact_integers
                parts.append(compact(chunk[name].to_numpy()))
    return {name: np.concatenate(columns.pop(name)) for name in _RATING_COLUMNS}


def parse_items(members: zipfile.ZipFile, archive: Archive) -> pd.DataFrame:
    """Read the movies: item, title, year (a str or missing) and genres.

    Raises KeyError or ValueError if the archive is not in the expected format.
    """
    filename = _LAYOUTS[archive.layout].items
    text = members.read(f"{archive.folder}/{filename}").decode(archive.encoding)
    # Not str.splitlines, which also splits at characters that occur in titles.
    lines = io.StringIO(text, newline="" if archive.layout == "csv" else None)
    rows = list(_ROWS[archive.layout](lines))
    items = pd.DataFrame(rows, columns=["item", "title", "genres"])
    items["item"] = items["item"].astype("int64")
    titles = items["title"].str.strip()
    named = titles.str.extract(_TITLE_AND_YEAR)
    items["title"] = named["title"].fillna(titles)
    items.insert(2, "year", named["year"])
    return items


def read_splits(members: zipfile.ZipFile, archive: Archive) -> dict[str, bytes]:
    """Read the files of the canonical splits in the archive, unparsed."""
    filenames = [f"{split}.{part}" for split in SPLITS for part in ("base", "test")]
    present = set(members.namelist())
    return {
        filename: members.read(f"{archive.folder}/{filename}")
        for filename in filenames
        if archive.layout == "u" and f"{archive.folder}/{filename}" in present
    }


def _compact_integers(values: NDArray[Any]) -> NDArray[Any]:
    low, high = np.min_scalar_type(values.min()), np.min_scalar_type(values.max())
    return values.astype(np.promote_types(low, high))


def _compact_ratings(values: NDArray[Any]) -> NDArray[Any]:
    check_range(values, 0.5, 5)
    if not np.all(values * 2 % 1 == 0):
        raise ValueError("a rating is not a multiple of half a star")
    whole = np.all(values % 1 == 0)
    return values.astype(np.uint8 if whole else np.float16)


def _rows_of_u_item(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Parse rows ``item|title|release date|video date|address|19 genre flags``."""
    for line in lines:
        fields = line.rstrip("\n").split("|")
        if len(fields) != 5 + len(_GENRES_100K):
            raise ValueError(f"u.item has a line with {len(fields)} fields: {line!r}")
        flags = zip(_GENRES_100K, fields[5:], strict=True)
        yield fields[0], fields[1], "|".join(name for name, on in flags if on == "1")


def _rows_of_movies_dat(lines: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """Parse rows ``item::title::genres``."""
    for line in lines:
        item, rest = line.rstrip("\n").split("::", 1)
        title, genres = rest.rsplit("::", 1)
        yield item, title, genres


def _rows_of_movies_csv(lines: Iterable[str]) -> Iterator[list[str]]:
    """Parse rows ``movieId,title,genres`` after a header."""
    rows = csv.reader(lines)
    next(rows, None)
    yield from rows


_ROWS = {
    "u": _rows_of_u_item,
    "dat": _rows_of_movies_dat,
    "csv": _rows_of_movies_csv,
}
