"""Fetcher of the MovieLens ratings, with a compact cache."""

import gzip
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from .._sklearn_compat import Interval, StrOptions
from ._base import (
    atomic_write,
    downloaded,
    get_data_home,
    make_writable,
    published_md5,
    validated_parameters,
    verify_archive,
)
from ._compact import check_range
from ._errors import DataFileError, LineError, line_of
from ._movielens_archives import (
    ARCHIVES,
    SPLITS,
    Archive,
    parse_items,
    parse_ratings,
    parse_users,
    read_ratings,
    read_splits,
)
from ._movielens_frames import load_movies, load_users

_Version: TypeAlias = Literal["100k", "1m", "10m", "latest-small", "25m", "32m"]

_BASE_URL = "https://files.grouplens.org/datasets/movielens/"

_DESCR = """\
.. _movielens_{name}:

{title}
{underline}

{n_ratings:,} ratings of {n_items:,} movies by {n_users:,} users of the web site
MovieLens, collected by GroupLens Research at the University of Minnesota. Ratings range
from {low:g} to {high:g} stars, with a mean of {mean:.5f}. Ids are the original ids.
{n_texts:,} movies have texts (source: {text_source}); {n_rated_texts:,} of these movies
have ratings.

Source: https://grouplens.org/datasets/movielens/

**Terms of use.** The data may be used for research. Publications must acknowledge their
use by the citation below, and must not state or imply an endorsement by the University
of Minnesota or GroupLens. Commercial use needs permission. The versions differ in the
terms of redistribution: 100k and 1m need separate permission; for the others see the
README at the source, which is binding for all versions. If the cache has plot texts,
they come from other sources and are not part of MovieLens.

**Citation.** F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets:
History and Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article
19. https://doi.org/10.1145/2827872
"""


@overload
def fetch_movielens(
    version: _Version = ...,
    *,
    data_home: str | os.PathLike[str] | None = ...,
    download_if_missing: bool = ...,
    return_X_y: Literal[True],
    n_retries: int = ...,
    delay: float = ...,
    verbose: bool = ...,
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def fetch_movielens(
    version: _Version = ...,
    *,
    data_home: str | os.PathLike[str] | None = ...,
    download_if_missing: bool = ...,
    return_X_y: bool = ...,
    n_retries: int = ...,
    delay: float = ...,
    verbose: bool = ...,
) -> Bunch: ...


@validated_parameters(
    {
        "version": [StrOptions(set(ARCHIVES))],
        "data_home": [str, os.PathLike, None],
        "download_if_missing": ["boolean"],
        "return_X_y": ["boolean"],
        "n_retries": [Interval(Integral, 0, None, closed="left")],
        "delay": [Interval(Real, 0.0, None, closed="left")],
        "verbose": ["boolean"],
    }
)
def fetch_movielens(
    version: _Version = "100k",
    *,
    data_home: str | os.PathLike[str] | None = None,
    download_if_missing: bool = True,
    return_X_y: bool = False,
    n_retries: int = 3,
    delay: float = 1.0,
    verbose: bool = False,
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load a MovieLens data set, and download it if it is not cached.

    ============  ==========  =======  ======  =====================================
    version       ratings     users    movies  stars
    ============  ==========  =======  ======  =====================================
    100k             100,000      943   1,682  whole, 1 to 5
    1m             1,000,209    6,040   3,883  whole, 1 to 5
    10m           10,000,054   69,878  10,681  half, 0.5 to 5
    25m           25,000,095  162,541  62,423  half, 0.5 to 5
    32m           32,000,204  200,948  87,585  half, 0.5 to 5
    latest-small   (changes)                   half, 0.5 to 5; for development only
    ============  ==========  =======  ======  =====================================

    Some of the listed movies have no ratings.

    The data may be used for research. Commercial use needs permission, and so does the
    redistribution of some versions: see `DESCR` and the README at the source [1]_.
    Publications are asked to cite [2]_.

    Parameters
    ----------
    version : {"100k", "1m", "10m", "latest-small", "25m", "32m"}, default="100k"
        Version of the data set.

    data_home : str or path-like, default=None
        Path of the cache folder, see :func:`get_data_home`. It may be read-only if the
        data are already cached.

    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading a data set that is neither
        cached nor present as an archive in `data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    n_retries : int, default=3
        Maximum number of times that an interrupted transfer is resumed.

    delay : float, default=1.0
        Seconds between retries.

    verbose : bool, default=False
        If True, print every 5 seconds how much of the archive is downloaded.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the columns ``user`` and ``item``, the `X` of an
            estimator. The order is that of the ratings file.
        target : Series of shape (n_ratings,)
            Ratings in float64: the `y` of an estimator. Half stars are exact.
        timestamps : ndarray of shape (n_ratings,)
            Seconds since 1970-01-01 UTC in int64; -1 if unknown.
        item_texts : Series of str
            Texts indexed by item id, without the items that have no text. Items
            without ratings may have a text.
        text_source : {"text", "plot", "title and genres"}
            Source of the texts. The archives have no plots, so by default a text
            consists of title and genres. If the cached ``texts.csv.gz`` has a column
            ``text`` or ``plot``, this column is used instead.
        movies : DataFrame of shape (n_movies, n_columns)
            What is known of the movies, rated or not, indexed by item id. The ids are
            those of `data`, so that the frame can be the ``item_features`` of a
            recommender. The columns are

            - ``title``: title without the year;
            - ``year``: year in Int64, of a series the first one; missing if unknown;
            - ``genres``: genres separated by ``|``. A movie without genres has ``(no
              genres listed)`` in the newer versions, ``unknown`` in "100k";
            - ``tags``: what users wrote about the movie, separated by ``|``, in the
              order of the file and with repetitions; missing if nobody did. Only in
              "10m", "latest-small", "25m" and "32m";
            - ``plot``: plot as in `item_texts`, missing if unknown. Only if the cached
              ``texts.csv.gz`` has plots; the archives have none.
        users : DataFrame of shape (n_users, 4) or None
            What is known of the users, indexed by user id. The ids are those of `data`,
            so that the frame can be the ``user_features`` of a recommender. None if the
            version has no such data, which only "100k" and "1m" have, or the cache has
            no ``users.csv.gz``. The columns are

            - ``age``: age in years in int64. In "1m" the lowest age of a group: 1
              (under 18), 18, 25, 35, 45, 50 or 56 (and above);
            - ``gender``: ``F`` or ``M``;
            - ``occupation``: occupation in words, of which "100k" and "1m" have
              different ones;
            - ``zip_code``: zip or postal code as a str, as the user entered it.
        splits : dict of str to (ndarray, ndarray)
            Canonical splits ``"u1"`` to ``"u5"`` of "100k", if they are in the cache,
            as positions of the training ratings and of the test ratings in `data`. For
            example, pass ``cv=[dataset.splits["u1"]]`` to
            :class:`~sklearn.model_selection.GridSearchCV`. Empty for other versions.
        DESCR : str
            Description, terms of use and citation.
        data_filename, movies_filename, users_filename : str
            Paths of the cached files. `users_filename` is None if `users` is.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If the data are not cached and `download_if_missing` is False, if they cannot
        be downloaded, or if the cache is not writable.
    DataFileError
        If the archive or the cache is damaged.

    See Also
    --------
    make_ratings : Generate synthetic ratings and texts of any size.

    Notes
    -----
    A manually downloaded archive in `data_home` is used if it has its original name,
    for example ``ml-1m.zip``. It is not deleted. Archives are verified by the MD5
    checksum that GroupLens publishes. This module has the checksums of the fixed
    versions. The checksum of "latest-small" is downloaded from the URL of the archive
    plus ``.md5``. If the server does not have that file, and for a manually downloaded
    archive of "latest-small", the CRC of every member is verified instead.

    The cache has ``<name>/ratings.npz`` (arrays ``user``, ``item``, ``rating`` and
    ``timestamp``) and ``<name>/texts.csv.gz``, for "100k" and "1m" also
    ``users.csv.gz``, and for "100k" ``u1.base`` to ``u5.test``. An existing
    ``texts.csv.gz``, for example with plots, or ``users.csv.gz`` is not overwritten.
    Files are written atomically, and several processes may fetch at the same time. An
    interrupted download is resumed.

    The tags of a movie were written by users of the data set, most of whom have also
    rated it, and ``tags`` does not say who wrote which one. A tag such as "boring" may
    reveal a rating of the test set. In ``tags``, runs of blanks become one blank, and
    so does a ``|`` within a tag.

    References
    ----------
    .. [1] https://grouplens.org/datasets/movielens/
    .. [2] F. Maxwell Harper and Joseph A. Konstan. "The MovieLens Datasets: History
       and Context." ACM Transactions on Interactive Intelligent Systems 5(4), 2015.
       https://doi.org/10.1145/2827872

    Examples
    --------
    The first call downloads about 5 MB.

    >>> from skrec.datasets import fetch_movielens
    >>> movielens = fetch_movielens("100k")  # doctest: +SKIP
    >>> movielens.data.shape  # doctest: +SKIP
    (100000, 2)
    >>> movielens.movies.loc[1]  # doctest: +SKIP
    title                       Toy Story
    year                             1995
    genres    Animation|Children's|Comedy
    Name: 1, dtype: object
    """
    archive = ARCHIVES[version]
    home = Path(get_data_home(data_home))
    folder = home / archive.name
    if not _is_cached(folder):
        network = {"n_retries": n_retries, "delay": delay}
        _fill_cache(archive, home, download_if_missing, network, verbose)
    dataset = _load(version, folder)
    return (dataset.data, dataset.target) if return_X_y else dataset


# -- from an archive to the cache ----------------------------------------------------


def _is_cached(folder: Path) -> bool:
    return (folder / "ratings.npz").is_file() and (folder / "texts.csv.gz").is_file()


def _fill_cache(
    archive: Archive,
    home: Path,
    download_if_missing: bool,
    network: dict[str, Any],
    verbose: bool,
) -> None:
    target = home / f"{archive.name}.zip"
    url = f"{_BASE_URL}{archive.name}.zip"
    by_hand = target.is_file()
    if not by_hand and not download_if_missing:
        raise OSError(
            f"{archive.name} is not cached in {str(home)!r} and "
            f"download_if_missing=False. Set it to True, pass another data_home, or "
            f"save {url} as {str(target)!r}."
        )
    make_writable(home)
    with ExitStack() as stack:
        if by_hand:
            path, md5, name = target, archive.md5, str(target)
            remedy = "Delete this file or replace it by an intact one, then call again."
        else:
            md5 = archive.md5 or published_md5(url, target, **network)
            download = downloaded(url, target, **network, verbose=verbose)
            path, name = stack.enter_context(download), url
            remedy = "It has been discarded; call again to download it once more."
        verify_archive(path, md5, name=name, remedy=remedy)
        _write_cache(path, archive, home / archive.name, name)


def _write_cache(path: Path, archive: Archive, folder: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(path) as members:
            items = parse_items(members, archive)
            users = parse_users(members, archive)
            ratings = parse_ratings(members, archive)
            splits = read_splits(members, archive)
    # zipfile raises half a dozen types for damaged bytes.
    except Exception as error:
        raise DataFileError(
            f"{name} is not in the official format of {archive.name} ({error}).",
            name,
            line_of(error),
        ) from error
    make_writable(folder)
    for filename, table in (("texts.csv.gz", items), ("users.csv.gz", users)):
        if table is not None and not (folder / filename).exists():
            with atomic_write(folder / filename) as file:
                # With the terminator "\n", a field that contains "\r" is not quoted.
                text = table.to_csv(index=False, lineterminator="\r\n")
                file.write(gzip.compress(text.encode("utf-8"), mtime=0))
    for filename, content in splits.items():
        with atomic_write(folder / filename) as file:
            file.write(content)
    # Written last, because its presence marks the cache as complete.
    with atomic_write(folder / "ratings.npz") as file:
        np.savez_compressed(file, **ratings)


# -- from the cache to a Bunch -------------------------------------------------------


def _load(version: str, folder: Path) -> Bunch:
    with _named(folder / "ratings.npz") as path:
        data, target, timestamps = _load_ratings(path)
    with _named(folder / "texts.csv.gz") as path:
        movies, texts, text_source = load_movies(path)
    with _named(folder / "users.csv.gz") as path:
        users = load_users(path)
    splits = _load_splits(folder, data) if version == "100k" else {}
    return Bunch(
        data=data,
        target=target,
        timestamps=timestamps,
        item_texts=texts,
        text_source=text_source,
        movies=movies,
        users=users,
        splits=splits,
        DESCR=_describe(version, data, target, texts, text_source),
        data_filename=str(folder / "ratings.npz"),
        movies_filename=str(folder / "texts.csv.gz"),
        users_filename=None if users is None else str(folder / "users.csv.gz"),
    )


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """Name a cached file, and what to do about it, in the errors of its parser."""
    try:
        yield path
    # NumPy, zipfile and gzip raise a dozen types for damaged bytes.
    except Exception as error:
        if isinstance(error, OSError) and error.filename is not None:
            raise  # the file cannot be opened
        raise DataFileError(
            f"The cached files in {str(path.parent)!r} are damaged ({path.name}: "
            f"{error}). Delete this folder and call again.",
            path,
            line_of(error),
        ) from error


def _load_ratings(path: Path) -> tuple[pd.DataFrame, pd.Series, NDArray[np.int64]]:
    # Not np.load(path), which leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        columns = {name: arrays[name] for name in ("user", "item", "timestamp")}
        rating = arrays["rating"]
    wrong = [name for name, values in columns.items() if values.dtype.kind not in "iu"]
    if wrong or rating.dtype.kind not in "iuf":
        raise ValueError(f"{(*wrong, 'rating')[0]} has a wrong dtype")
    if rating.ndim != 1 or any(v.shape != rating.shape for v in columns.values()):
        raise ValueError("its arrays differ in shape")
    check_range(rating, 0.5, 5, "in row {} ")
    # Wide types: the compact types of the cache would overflow in user * n_items.
    wide = {name: values.astype(np.int64) for name, values in columns.items()}
    timestamps = wide.pop("timestamp")
    target = pd.Series(rating.astype(np.float64), name="rating")
    return pd.DataFrame(wide, copy=False), target, timestamps


def _load_splits(
    folder: Path, data: pd.DataFrame
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    ratings = pd.MultiIndex.from_frame(data)
    splits = {}
    for split in SPLITS:
        paths = [folder / f"{split}.{part}" for part in ("base", "test")]
        if all(path.is_file() for path in paths):
            found = []
            for path in paths:
                with _named(path):
                    found.append(_positions(path, ratings))
            splits[split] = found[0], found[1]
    return splits


def _positions(path: Path, ratings: pd.MultiIndex) -> NDArray[np.int64]:
    """Return the ascending positions of the ratings in the file of a split."""
    with path.open("rb") as file:
        pairs = pd.concat(read_ratings(file, path.name))[["user", "item"]]
    positions = ratings.get_indexer(pd.MultiIndex.from_frame(pairs))
    if np.any(positions < 0):
        line = int(np.argmax(positions < 0)) + 1
        raise LineError(
            f"{path.name} lists ratings that ratings.npz does not have, the first in "
            f"line {line}",
            line,
        )
    return np.sort(positions)


def _describe(
    version: str,
    data: pd.DataFrame,
    target: pd.Series,
    texts: pd.Series,
    text_source: str,
) -> str:
    title = f"MovieLens {version}"
    rated = data["item"].drop_duplicates()
    return _DESCR.format(
        name=version.replace("-", "_"),
        title=title,
        underline="-" * len(title),
        n_ratings=len(data),
        n_users=data["user"].nunique(),
        n_items=len(rated),
        low=target.min(),
        high=target.max(),
        mean=target.mean(),
        text_source=text_source,
        n_texts=len(texts),
        n_rated_texts=rated.isin(texts.index).sum(),
    )
