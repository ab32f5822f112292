"""Frames of what is known of the movies and users of MovieLens, from the cache."""

from pathlib import Path

import pandas as pd

from ._csv import read_csv
from ._movielens_archives import split_titles
from ._movielens_rows import OCCUPATIONS_1M

_NO_GENRES = "(no genres listed)"
_MOVIE_COLUMNS = ["title", "year", "genres", "tags", "plot"]
_USER_COLUMNS = ["age", "gender", "occupation", "zip_code"]


def load_movies(path: Path) -> tuple[pd.DataFrame, pd.Series, str]:
    """Return the movies, the texts of the items and the source of these texts.

    Raises KeyError or ValueError if the file is not as the fetcher has written it.
    """
    table = read_csv(path, "item")
    table["genres"] = table["genres"].fillna("")
    if not table["genres"].str.contains("|", regex=False).any():
        table["genres"] = _with_bars(table["genres"])
    texts, text_source = _texts_of(table)
    table["title"], table["year"] = _titles_and_years(table["title"], table["year"])
    if text_source != "title and genres":
        table["plot"] = texts
    movies = table[[name for name in _MOVIE_COLUMNS if name in table]]
    return movies, texts, text_source


def load_users(path: Path) -> pd.DataFrame | None:
    """Return the users, or None if the cache has no such file.

    Raises KeyError or ValueError if the file is not as the fetcher has written it.
    """
    if not path.is_file():
        return None
    table = read_csv(path, "user")
    if table["occupation"].str.isdigit().all():
        codes = table["occupation"].astype("int64")
        names = codes.map(dict(enumerate(OCCUPATIONS_1M)))
        if names.isna().any():
            wrong = codes[names.isna()].iloc[0]
            raise ValueError(f"{path.name} has the unknown occupation {wrong}")
        table["occupation"] = names
    table = table.astype({"age": "int64"}).rename(columns={"zip": "zip_code"})
    return table[_USER_COLUMNS]


def _with_bars(genres: pd.Series) -> pd.Series:
    """Convert genres separated by spaces, as in some caches, to the separator "|"."""
    return genres.where(genres == _NO_GENRES, genres.str.replace(" ", "|"))


def _texts_of(table: pd.DataFrame) -> tuple[pd.Series, str]:
    for column in ("text", "plot"):
        if column in table:
            return table[column].dropna().rename("text"), column
    genres = table["genres"].replace(_NO_GENRES, "").str.replace("|", " ")
    texts = (table["title"] + " " + genres).str.strip()
    return texts.rename("text"), "title and genres"


def _titles_and_years(
    titles: pd.Series, years: pd.Series
) -> tuple[pd.Series, pd.Series]:
    """Take years out of the titles that still have them, as in some caches."""
    bare, found = (part.where(titles.notna()) for part in split_titles(titles))
    found = pd.to_numeric(found).astype("Int64")
    years = pd.to_numeric(years, errors="coerce").astype("Int64")
    # A year in the title that differs from the known one is a part of the title.
    same = found.notna() & (years.isna() | (years == found)).fillna(False)
    return titles.where(~same, bare).str.strip(), years.fillna(found)
