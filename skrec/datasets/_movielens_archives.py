"""The official MovieLens archives and the parsers of their files."""

import re
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ._compact import check_range
from ._errors import LineError
from ._lines import (
    DECIMAL,
    INTEGER,
    check_lines,
    line_pattern,
    parse_lines,
    read_numbers,
)
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

_CSV_HEADER = b"userId,movieId,rating,timestamp"
_RATING_COLUMNS = ("user", "item", "rating", "timestamp")
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
    separator: str  # of the fields in the files except u.data
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
        separator="|",
        items=_Table("u.item", item_of_u),
        users=_Table("u.user", user_of_u),
    ),
    "dat": _Layout(
        ratings="ratings.dat",
        separator="::",
        items=_Table("movies.dat", item_of_dat),
        users=_Table("users.dat", user_of_dat),
        tags=_Table("tags.dat", tag_of_dat),
    ),
    "csv": _Layout(
        ratings="ratings.csv",
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
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in _RATING_COLUMNS}
    with members.open(f"{archive.folder}/{layout.ratings}") as file:
        n_before = _skip_header(file, layout.ratings) if archive.layout == "csv" else 0
        for part in read_ratings(file, layout.ratings, n_before):
            for name, parts in columns.items() if len(part) else ():
                compact = _compact_ratings if name == "rating" else _compact_integers
                parts.append(compact(part[name].to_numpy()))
    if not columns["user"]:
        raise ValueError(f"{layout.ratings} has no ratings")
    return {name: np.concatenate(columns.pop(name)) for name in _RATING_COLUMNS}


def read_ratings(
    file: IO[bytes], filename: str, n_before: int = 0
) -> Iterator[pd.DataFrame]:
    """Yield the ratings of a file, after a header of `n_before` lines.

    Raises LineError with the first malformed line.
    """
    separator = {".dat": "::", ".csv": ","}.get(filename[-4:], "\t")
    fields = (INTEGER, INTEGER, DECIMAL, rb"-?" + INTEGER)
    pattern = line_pattern(separator.encode().join(fields))

    def parse(block: bytes) -> pd.DataFrame:
        check_lines(block, pattern, separator.join(_RATING_COLUMNS))
        # pandas' fast parser only supports separators of one character.
        block = block.replace(b"::", b":")
        ratings = read_numbers(block, list(_RATING_COLUMNS), separator[0])
        _check_ratings(ratings["rating"].to_numpy())
        return ratings

    try:
        yield from parse_lines(file, parse, n_before)
    except LineError as error:
        raise LineError(f"{filename}, {error}", error.line) from error


def _skip_header(file: IO[bytes], filename: str) -> int:
    header = file.readline()
    if header.rstrip() != _CSV_HEADER:
        found = header[:60].decode("utf-8", "backslashreplace")
        raise LineError(
            f"{filename}, line 1 is {found!r} instead of {_CSV_HEADER.decode()!r}", 1
        )
    return 1


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


def _check_ratings(values: NDArray[Any]) -> None:
    check_range(values, 0.5, 5)
    if not np.all(values * 2 % 1 == 0):
        raise ValueError("a rating is not a multiple of half a star")


def _compact_ratings(values: NDArray[Any]) -> NDArray[Any]:
    whole = np.all(values % 1 == 0)
    return values.astype(np.uint8 if whole else np.float16)
