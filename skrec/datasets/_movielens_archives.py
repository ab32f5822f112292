"""The official MovieLens archives and the parsers of their files."""

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._compact import check_range
from ._movielens_rows import (
    Record,
    item_of_csv,
    item_of_dat,
    item_of_u,
    read_records,
    tag_of_csv,
    tag_of_dat,
    unique_rows,
    user_of_dat,
    user_of_u,
)

SPLITS = ("u1", "u2", "u3", "u4", "u5")

_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
_CHUNK = 1_000_000  # ratings parsed at a time, to bound the memory of the parser
# A series has a range of years, "(2006-2007)" with a hyphen or a dash, or an open one.
# A few titles end in "(V)", straight to video, after the year.
_TITLE_AND_YEAR = re.compile(
    r"^(?P<title>.*?)\s*"
    r"\((?P<year>\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\)\s*(?:\(V\))?$"
)


class Archive(NamedTuple):
    """A published zip file."""

    name: str  # of the zip file, without suffix, and of the cache folder
    folder: str  # inside the zip file
    layout: str  # a key of _LAYOUTS
    encoding: str
    # The published checksum. None for the development set "latest-small", which
    # changes from time to time.
    md5: str | None


class _Table(NamedTuple):
    filename: str
    parse: Callable[[Record], tuple[Any, ...]]


class _Layout(NamedTuple):
    ratings: str
    ratings_options: dict[str, Any]
    separator: str  # of the fields in the other files
    items: _Table
    users: _Table | None = None
    tags: _Table | None = None


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
    "u": _Layout(
        ratings="u.data",
        ratings_options={"sep": "\t", "header": None},
        separator="|",
        items=_Table("u.item", item_of_u),
        users=_Table("u.user", user_of_u),
    ),
    # pandas' fast parser only supports separators of one character, so "::" is read as
    # ":" followed by an empty column.
    "dat": _Layout(
        ratings="ratings.dat",
        ratings_options={"sep": ":", "header": None, "usecols": [0, 2, 4, 6]},
        separator="::",
        items=_Table("movies.dat", item_of_dat),
        users=_Table("users.dat", user_of_dat),
        tags=_Table("tags.dat", tag_of_dat),
    ),
    "csv": _Layout(
        ratings="ratings.csv",
        ratings_options={"header": 0},
        separator=",",
        items=_Table("movies.csv", item_of_csv),
        tags=_Table("tags.csv", tag_of_csv),
    ),
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
    """Read the movies: item, title, year (a str or missing), genres and perhaps tags.

    Raises KeyError or ValueError if the archive is not in the expected format.
    """
    layout = _LAYOUTS[archive.layout]
    rows = list(unique_rows(_records(members, archive, layout.items), "item"))
    items = pd.DataFrame(rows, columns=["item", "title", "genres"])
    items["title"], years = split_titles(items["title"])
    items.insert(2, "year", years)
    tags = _parse_tags(members, archive)
    if tags:
        items["tags"] = items["item"].map(tags)
    return items


def split_titles(titles: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Split "Jumanji (1995)" into the title and the year, a str or missing."""
    titles = titles.str.strip()
    named = titles.str.extract(_TITLE_AND_YEAR)
    return named["title"].fillna(titles), named["year"]


def parse_users(members: zipfile.ZipFile, archive: Archive) -> pd.DataFrame | None:
    """Read the users: user, gender, age, occupation and zip; None if there are none.

    Raises ValueError if the file is not in the expected format.
    """
    table = _LAYOUTS[archive.layout].users
    if table is None or not _has(members, archive, table):
        return None
    rows = list(unique_rows(_records(members, archive, table), "user"))
    return pd.DataFrame(rows, columns=["user", "gender", "age", "occupation", "zip"])


def _parse_tags(members: zipfile.ZipFile, archive: Archive) -> dict[int, str]:
    """Join the tags of each movie with "|", in the order of the file."""
    table = _LAYOUTS[archive.layout].tags
    tags: dict[int, list[str]] = {}
    if table is not None and _has(members, archive, table):
        for _, (item, tag) in _records(members, archive, table):
            if tag:
                tags.setdefault(item, []).append(tag)
    return {item: "|".join(parts) for item, parts in tags.items()}


def _has(members: zipfile.ZipFile, archive: Archive, table: _Table) -> bool:
    return f"{archive.folder}/{table.filename}" in members.namelist()


def _records(
    members: zipfile.ZipFile, archive: Archive, table: _Table
) -> Iterator[tuple[Record, tuple[Any, ...]]]:
    """Yield the rows of a file with what is parsed from them."""
    records = read_records(
        members.read(f"{archive.folder}/{table.filename}"),
        table.filename,
        separator=_LAYOUTS[archive.layout].separator,
        encoding=archive.encoding,
    )
    for record in records:
        yield record, table.parse(record)


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
