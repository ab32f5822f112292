"""MovieLens: ratings of movies, fetched once and cached in a compact form."""

import gzip
import os
import zipfile
import zlib
from contextlib import ExitStack
from numbers import Integral, Real
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.utils import Bunch
from sklearn.utils._param_validation import Interval, StrOptions, validate_params

from skrec.datasets._base import (
    atomic_write,
    downloaded,
    get_data_home,
    make_writable,
    published_md5,
    verify_archive,
)
from skrec.datasets._movielens_archives import (
    ARCHIVES,
    SPLITS,
    Archive,
    parse_items,
    parse_ratings,
    read_splits,
)

_BASE_URL = "https://files.grouplens.org/datasets/movielens/"
_NO_GENRES = "(no genres listed)"
_DAMAGED = (
    KeyError,
    ValueError,
    EOFError,
    gzip.BadGzipFile,
    zipfile.BadZipFile,
    zlib.error,
)

_DESCR = """\
.. _movielens_{name}:

{title}
{underline}

{n_ratings:,} ratings of {n_items:,} movies by {n_users:,} users of the web site
MovieLens, collected by GroupLens Research at the University of Minnesota. Ratings lie
between {low:g} and {high:g} stars, their mean is {mean:.5f}. Ids are the original ones.
Texts (source: {text_source}) are known for {n_texts:,} movies, {n_rated_texts:,} of
them rated.

Source: https://grouplens.org/datasets/movielens/

**Terms of use.** The data may be used for research. Publications must acknowledge their
use by the citation below, must not state or imply that the University of Minnesota or
GroupLens endorses them, and commercial use needs permission. Whether and how the data
may be redistributed differs: 100k and 1m not without separate permission; for the
others see the README at the source, which is binding for all of them. Plot texts, where
the cache has them, come from other sources and are no part of MovieLens.

**Citation.** F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets:
History and Context. ACM Transactions on Interactive Intelligent Systems 5, 4, Article
19. https://doi.org/10.1145/2827872
"""


@validate_params(
    {
        "version": [StrOptions(set(ARCHIVES))],
        "data_home": [str, os.PathLike, None],
        "download_if_missing": ["boolean"],
        "return_X_y": ["boolean"],
        "n_retries": [Interval(Integral, 0, None, closed="left")],
        "delay": [Interval(Real, 0.0, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def fetch_movielens(
    version="100k",
    *,
    data_home=None,
    download_if_missing=True,
    return_X_y=False,
    n_retries=3,
    delay=1.0,
):
    """Load a MovieLens data set, downloading it when it is not cached yet.

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

    Not every listed movie has a rating.

    The data may be used for research; commercial use needs permission, and so does
    redistribution of some versions: see `DESCR` and the README at the source [1]_.
    Publications are asked to cite [2]_.

    Parameters
    ----------
    version : {"100k", "1m", "10m", "latest-small", "25m", "32m"}, default="100k"
        The data set.

    data_home : str or path-like, default=None
        Folder of the cache, see :func:`get_data_home`. A filled cache may be
        read-only.

    download_if_missing : bool, default=True
        If False, raise an OSError instead of downloading what is neither cached nor
        lies as an archive in `data_home`.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    n_retries : int, default=3
        How often a transfer that broke off is resumed.

    delay : float, default=1.0
        Seconds between retries.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            Columns ``user`` and ``item``: what an estimator takes as `X`. The order
            is the one of the ratings file.
        target : Series of shape (n_ratings,)
            The ratings in float64: what an estimator takes as `y`. Half stars are
            exact.
        timestamps : ndarray of shape (n_ratings,)
            Seconds since 1970-01-01 UTC in int64; -1 where unknown.
        item_texts : Series of str
            Texts indexed by item id; an item without text is absent, an item without
            rating may be present.
        text_source : {"text", "plot", "title and genres"}
            What the texts are. The archives carry no plots: a text then consists of
            title and genres. A column ``text`` or ``plot`` in the cached
            ``texts.csv.gz`` takes their place.
        movies : DataFrame of shape (n_movies, n_columns)
            Indexed by item id, with the columns ``title``, ``year`` (Int64, missing
            where unknown), ``genres`` (separated by ``|``) and any other that the
            cached file has.
        splits : dict of str to (ndarray, ndarray)
            The canonical splits of "100k", ``"u1"`` to ``"u5"`` as far as they are in
            the cache, as positions of the training and of the test ratings in
            `data`: ``cv=[dataset.splits["u1"]]`` hands one to
            :class:`~sklearn.model_selection.GridSearchCV`. Empty for other versions.
        DESCR : str
            Description, terms of use and citation.
        data_filename, movies_filename : str
            The cached files.

    (data, target) : tuple if ``return_X_y`` is True

    Raises
    ------
    OSError
        If the data are not cached and `download_if_missing` is False, if they cannot
        be downloaded, if the archive or the cache is damaged, or if the cache cannot
        be written.

    See Also
    --------
    make_ratings : Draw synthetic ratings and texts of any size.

    Notes
    -----
    An archive downloaded by hand is used when it lies in `data_home` under its own
    name, say ``ml-1m.zip``; it is left there. Archives are compared with the MD5
    checksum that GroupLens publishes. Those of the fixed sets are known to this
    module. For "latest-small" it is asked from the server after the archive's
    address plus ``.md5``; should the server not have that file, and for an archive of
    "latest-small" put there by hand, the CRC of every member is checked instead.

    The cache holds ``<name>/ratings.npz`` (arrays ``user``, ``item``, ``rating`` and
    ``timestamp``) and ``<name>/texts.csv.gz``, for "100k" also ``u1.base`` to
    ``u5.test``. A ``texts.csv.gz`` that is already there, say one with plots, is kept.
    Each file appears whole or not at all, and several processes may fetch at once. A
    download that broke off goes on from where it stopped.

    References
    ----------
    .. [1] https://grouplens.org/datasets/movielens/
    .. [2] F. Maxwell Harper and Joseph A. Konstan. "The MovieLens Datasets: History
       and Context." ACM Transactions on Interactive Intelligent Systems 5(4), 2015.
       https://doi.org/10.1145/2827872

    Examples
    --------
    The first call needs the network and downloads about 5 MB.

    >>> from skrec.datasets import fetch_movielens
    >>> movielens = fetch_movielens("100k")  # doctest: +SKIP
    >>> movielens.data.shape  # doctest: +SKIP
    (100000, 2)
    """
    archive = ARCHIVES[version]
    home = Path(get_data_home(data_home))
    folder = home / archive.name
    if not _is_cached(folder):
        network = {"n_retries": n_retries, "delay": delay}
        _fill_cache(archive, home, download_if_missing, network)
    dataset = _load(version, folder)
    return (dataset.data, dataset.target) if return_X_y else dataset


# -- from an archive to the cache ----------------------------------------------------


def _is_cached(folder: Path) -> bool:
    return (folder / "ratings.npz").is_file() and (folder / "texts.csv.gz").is_file()


def _fill_cache(
    archive: Archive, home: Path, download_if_missing: bool, network: dict
) -> None:
    target = home / f"{archive.name}.zip"
    url = f"{_BASE_URL}{archive.name}.zip"
    by_hand = target.is_file()
    if not by_hand and not download_if_missing:
        raise OSError(
            f"{archive.name} is not cached in {str(home)!r} and "
            f"download_if_missing=False. Allow the download, name another data_home, "
            f"or save {url} as {str(target)!r}."
        )
    make_writable(home)
    with ExitStack() as stack:
        if by_hand:
            path, md5, name = target, archive.md5, str(target)
            remedy = "Delete that file, then call again or put a sound one there."
        else:
            md5 = archive.md5 or published_md5(url, target, **network)
            path, name = stack.enter_context(downloaded(url, target, **network)), url
            remedy = "It has been discarded; call again to download it afresh."
        verify_archive(path, md5, name=name, remedy=remedy)
        _write_cache(path, archive, home / archive.name, name)


def _write_cache(path: Path, archive: Archive, folder: Path, name: str) -> None:
    try:
        with zipfile.ZipFile(path) as members:
            items = parse_items(members, archive)
            ratings = parse_ratings(members, archive)
            splits = read_splits(members, archive)
    except _DAMAGED as error:
        raise OSError(
            f"{name} is not in the official format of {archive.name} ({error})."
        ) from error
    make_writable(folder)
    if not (folder / "texts.csv.gz").exists():
        with atomic_write(folder / "texts.csv.gz") as file:
            text = items.to_csv(index=False).encode("utf-8")
            file.write(gzip.compress(text, mtime=0))
    for filename, content in splits.items():
        with atomic_write(folder / filename) as file:
            file.write(content)
    # Last, because a folder counts as filled once this file is there.
    with atomic_write(folder / "ratings.npz") as file:
        np.savez_compressed(file, **ratings)


# -- from the cache to a Bunch -------------------------------------------------------


def _load(version: str, folder: Path) -> Bunch:
    try:
        data, target, timestamps = _load_ratings(folder / "ratings.npz")
        movies = _load_movies(folder / "texts.csv.gz")
        texts, text_source = _texts_of(movies)
        splits = _load_splits(folder, data) if version == "100k" else {}
    except _DAMAGED as error:
        raise OSError(
            f"The cached files in {str(folder)!r} are damaged ({error}). Delete that "
            "folder and call again."
        ) from error
    return Bunch(
        data=data,
        target=target,
        timestamps=timestamps,
        item_texts=texts,
        text_source=text_source,
        movies=movies,
        splits=splits,
        DESCR=_describe(version, data, target, texts, text_source),
        data_filename=str(folder / "ratings.npz"),
        movies_filename=str(folder / "texts.csv.gz"),
    )


def _load_ratings(path: Path) -> tuple[pd.DataFrame, pd.Series, np.ndarray]:
    # Wide types for the caller: the cached ones would overflow in user * n_items.
    with np.load(path, allow_pickle=False) as arrays:
        ids = {name: arrays[name].astype(np.int64) for name in ("user", "item")}
        target = pd.Series(arrays["rating"].astype(np.float64), name="rating")
        timestamps = arrays["timestamp"].astype(np.int64)
    return pd.DataFrame(ids, copy=False), target, timestamps


def _load_movies(path: Path) -> pd.DataFrame:
    # "None" and "NA" are titles and words, not missing values.
    movies = pd.read_csv(path, keep_default_na=False, na_values=[""])
    movies["genres"] = movies["genres"].fillna("")
    if not movies["genres"].str.contains("|", regex=False).any():
        movies["genres"] = _with_bars(movies["genres"])
    movies["year"] = pd.to_numeric(movies["year"], errors="coerce").astype("Int64")
    return movies.set_index("item")


def _with_bars(genres: pd.Series) -> pd.Series:
    """Genres separated by spaces, as some caches have them, separated by bars."""
    return genres.where(genres == _NO_GENRES, genres.str.replace(" ", "|"))


def _texts_of(movies: pd.DataFrame) -> tuple[pd.Series, str]:
    for column in ("text", "plot"):
        if column in movies:
            return movies[column].dropna().rename("text"), column
    genres = movies["genres"].replace(_NO_GENRES, "").str.replace("|", " ")
    texts = (movies["title"] + " " + genres).str.strip()
    return texts.rename("text"), "title and genres"


def _load_splits(
    folder: Path, data: pd.DataFrame
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    ratings = pd.MultiIndex.from_frame(data)
    splits = {}
    for split in SPLITS:
        paths = [folder / f"{split}.{part}" for part in ("base", "test")]
        if all(path.is_file() for path in paths):
            train, test = (_positions(path, ratings) for path in paths)
            splits[split] = train, test
    return splits


def _positions(path: Path, ratings: pd.MultiIndex) -> np.ndarray:
    """Positions, in ascending order, of the ratings that a split's file lists."""
    pairs = pd.read_csv(path, sep="\t", header=None, usecols=[0, 1])
    positions = ratings.get_indexer(pd.MultiIndex.from_frame(pairs))
    if np.any(positions < 0):
        raise ValueError(f"{path.name} lists ratings that ratings.npz does not have")
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
