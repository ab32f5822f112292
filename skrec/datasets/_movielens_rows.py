"""Parsers of the rows of the files in the MovieLens archives, except the ratings."""

import csv
import io
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from ._errors import LineError

_MAX_DIGITS = 18  # of an integer of 64 bits
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
# The occupations of 1m by their code.
OCCUPATIONS_1M = (
    "other",
    "academic/educator",
    "artist",
    "clerical/admin",
    "college/grad student",
    "customer service",
    "doctor/health care",
    "executive/managerial",
    "farmer",
    "homemaker",
    "K-12 student",
    "lawyer",
    "programmer",
    "retired",
    "sales/marketing",
    "scientist",
    "self-employed",
    "technician/engineer",
    "tradesman/craftsman",
    "unemployed",
    "writer",
)


class Record(NamedTuple):
    """The fields of a row, and where it is in the archive."""

    filename: str
    line: int
    fields: list[str]

    def error(self, found: str) -> LineError:
        return LineError(f"{self.filename}, line {self.line} has {found}", self.line)

    def expect(self, n_fields: int) -> list[str]:
        """Return the fields, of which there must be `n_fields`."""
        n_found = len(self.fields)
        if n_found != n_fields:
            raise self.error(f"{n_found} fields instead of {n_fields}: {self.fields}")
        return self.fields

    def integer(self, text: str, what: str) -> int:
        if not (text.isascii() and text.isdigit()):
            raise self.error(f"{text!r} as {what}, which is not a whole number")
        if len(text) > _MAX_DIGITS:
            raise self.error(f"{text} as {what}, which is too large")
        return int(text)


def read_records(
    content: bytes, filename: str, *, separator: str, encoding: str
) -> Iterator[Record]:
    """Yield the rows of a file; with the separator ",", those after a CSV header.

    Raises ValueError if the file is not in the encoding.
    """
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise LineError(
            f"{filename}, line {number} is not encoded in {encoding}", number
        ) from error
    if separator == ",":
        yield from _csv_records(text, filename)
        return
    # Not str.splitlines, which also splits at characters that occur in titles.
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        yield Record(filename, number, line.rstrip("\r\n").split(separator))


def _csv_records(text: str, filename: str) -> Iterator[Record]:
    """Yield the rows after the header; the line is the last one of a row."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        next(reader, None)
        for fields in reader:
            yield Record(filename, reader.line_num, fields)
    except csv.Error as error:
        line = reader.line_num
        raise LineError(f"{filename}, line {line}: {error}", line) from error


def unique_rows(
    rows: Iterable[tuple[Record, tuple[Any, ...]]], what: str
) -> Iterator[tuple[Any, ...]]:
    """Yield what is parsed from rows, whose first value, an id, must not repeat."""
    lines: dict[Any, int] = {}
    for record, row in rows:
        if row[0] in lines:
            raise record.error(
                f"the {what} id {row[0]} again, after line {lines[row[0]]}"
            )
        lines[row[0]] = record.line
        yield row


def item_of_u(record: Record) -> tuple[int, str, str]:
    """Parse ``item|title|release date|video date|address|19 genre flags``."""
    item, title, *_ = fields = record.expect(5 + len(_GENRES_100K))
    flags = fields[5:]
    if not set(flags) <= {"0", "1"}:
        raise record.error(f"genre flags other than 0 and 1: {flags}")
    genres = (name for name, on in zip(_GENRES_100K, flags, strict=True) if on == "1")
    return record.integer(item, "item id"), title, "|".join(genres)


def item_of_dat(record: Record) -> tuple[int, str, str]:
    """Parse ``item::title::genres``; a title may contain the separator."""
    if len(record.fields) < 3:
        raise record.error(f"not enough values: {record.fields}")
    item, *title, genres = record.fields
    return record.integer(item, "item id"), "::".join(title), genres


def item_of_csv(record: Record) -> tuple[int, str, str]:
    """Parse ``movieId,title,genres``."""
    if len(record.fields) != 3:
        raise record.error(f"{len(record.fields)} columns instead of 3")
    item, title, genres = record.fields
    return record.integer(item, "item id"), title, genres


def user_of_u(record: Record) -> tuple[int, str, int, str, str]:
    """Parse ``user|age|gender|occupation|zip``."""
    user, age, gender, occupation, code = record.expect(5)
    return _user(record, user, gender, age, occupation, code)


def user_of_dat(record: Record) -> tuple[int, str, int, str, str]:
    """Parse ``user::gender::age group::code of the occupation::zip``."""
    user, gender, age, occupation, code = record.expect(5)
    if record.integer(occupation, "occupation") >= len(OCCUPATIONS_1M):
        raise record.error(
            f"{occupation} as occupation, but they are from 0 to "
            f"{len(OCCUPATIONS_1M) - 1}"
        )
    return _user(record, user, gender, age, occupation, code)


def _user(
    record: Record, user: str, gender: str, age: str, occupation: str, code: str
) -> tuple[int, str, int, str, str]:
    if gender not in ("F", "M"):
        raise record.error(f"{gender!r} as gender, which is neither 'F' nor 'M'")
    return (
        record.integer(user, "user id"),
        gender,
        record.integer(age, "age"),
        occupation,
        code,
    )


def tag_of_dat(record: Record) -> tuple[int, str]:
    """Parse ``user::item::tag::time``; a tag may contain the separator."""
    if len(record.fields) < 4:
        raise record.error(f"not enough values: {record.fields}")
    user, item, *parts, time = record.fields
    return _tag(record, user, item, "::".join(parts), time)


def tag_of_csv(record: Record) -> tuple[int, str]:
    """Parse ``userId,movieId,tag,timestamp``."""
    user, item, tag, time = record.expect(4)
    return _tag(record, user, item, tag, time)


def _tag(record: Record, user: str, item: str, tag: str, time: str) -> tuple[int, str]:
    # The user and the time only show that the row is not damaged.
    record.integer(user, "user id")
    record.integer(time, "time")
    # A bar within a tag would split it.
    return record.integer(item, "item id"), " ".join(tag.replace("|", " ").split())
