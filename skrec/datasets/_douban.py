"""Loader of the Douban ratings from the official MATLAB file."""

import os
from pathlib import Path
from typing import Any, Literal, TypeAlias, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.utils import Bunch

from .._sklearn_compat import StrOptions
from ._base import get_data_home, validated_parameters
from ._compact import read_compact, to_dataset
from ._errors import DataFileError

_Subset: TypeAlias = Literal["all", "train", "test"]

_LOW, _HIGH = 1, 5
_MATRICES = ("M", "Otraining", "Otest")


@overload
def load_douban(
    *,
    data_home: str | os.PathLike[str] | None = ...,
    subset: _Subset = ...,
    return_X_y: Literal[True],
) -> tuple[pd.DataFrame, pd.Series]: ...


@overload
def load_douban(
    *,
    data_home: str | os.PathLike[str] | None = ...,
    subset: _Subset = ...,
    return_X_y: bool = ...,
) -> Bunch: ...


@validated_parameters(
    {
        "data_home": [str, os.PathLike, None],
        "subset": [StrOptions({"all", "train", "test"})],
        "return_X_y": ["boolean"],
    }
)
def load_douban(
    *,
    data_home: str | os.PathLike[str] | None = None,
    subset: _Subset = "all",
    return_X_y: bool = False,
) -> Bunch | tuple[pd.DataFrame, pd.Series]:
    """Load the Douban ratings and their published split from the official file.

    The data set has 136,891 ratings of 3,000 items by 2,999 users, in whole stars from
    1 to 5, of which 13,689 are the published test set. It is available at its
    source [1]_. Publications are asked to cite [2]_. Put
    ``training_test_dataset.mat`` into the folder ``douban`` of `data_home`.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder that contains the folder ``douban``, see
        :func:`get_data_home`.

    subset : {"all", "train", "test"}, default="all"
        Part of the published split to load: all ratings, the training set or the test
        set.

    return_X_y : bool, default=False
        If True, return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    dataset : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the following attributes.

        data : DataFrame of shape (n_ratings, 2)
            User and item ids: the columns ``user`` and ``item`` in int64, the `X` of
            an estimator. Ids are the rows and columns of the published matrix, from 0.
        target : Series of shape (n_ratings,)
            Ratings in float64: the `y` of an estimator.
        is_test : ndarray of shape (n_ratings,), dtype bool
            Whether a rating belongs to the test set.

    (data, target) : tuple if ``return_X_y`` is True
        The attributes `data` and `target`.

    Raises
    ------
    OSError
        If the file is missing.
    DataFileError
        If the file is damaged or not in the official format.
    ImportError
        If h5py is not installed and there is no ``ratings.npz``.

    Notes
    -----
    The official file is a MATLAB file of version 7.3. It is read with h5py, which is
    not a dependency of this package. Its matrices ``M``, ``Otraining`` and ``Otest``
    are the ratings (0 if missing) and the indicators of the training set and of the
    test set.

    If the folder has the file ``ratings.npz`` (arrays ``user``, ``item``, ``rating``
    and ``is_test``), the ratings are read from this file instead, without h5py.

    References
    ----------
    .. [1] https://github.com/fmonti/mgcnn
    .. [2] Federico Monti, Michael M. Bronstein and Xavier Bresson. 2017. "Geometric
       Matrix Completion with Recurrent Multi-Graph Neural Networks". NIPS '17.

    Examples
    --------
    >>> from skrec.datasets import load_douban
    >>> X_train, y_train = load_douban(
    ...     data_home="my_data", subset="train", return_X_y=True
    ... )  # doctest: +SKIP
    """
    folder = Path(get_data_home(data_home)) / "douban"
    if (folder / "ratings.npz").is_file():
        ratings = read_compact(folder / "ratings.npz", low=_LOW, high=_HIGH)
    elif (folder / "training_test_dataset.mat").is_file():
        ratings = _parse_ratings(folder / "training_test_dataset.mat")
    else:
        raise OSError(
            f"{str(folder)!r} has neither training_test_dataset.mat nor ratings.npz: "
            "put training_test_dataset.mat of Douban there, or pass another data_home."
        )
    if subset != "all":
        ratings = ratings[ratings["is_test"] == (subset == "test")]
    dataset = to_dataset(ratings)
    return (dataset.data, dataset.target) if return_X_y else dataset


def _parse_ratings(path: Path) -> pd.DataFrame:
    try:
        stars, train, test = _read_matrices(path)
        if not stars.shape == train.shape == test.shape:
            raise ValueError("its matrices differ in shape")
        rated, is_train, is_test = stars != 0, train != 0, test != 0
        if np.any(is_train & is_test):
            raise ValueError("a rating is in both Otraining and Otest")
        if np.any(rated != (is_train | is_test)):
            raise ValueError("Otraining and Otest together are not the ratings in M")
        user, item = rated.nonzero()
        if not len(user):
            raise ValueError("it has no ratings")
        rating = stars[user, item].astype(np.float64)
        wrong = np.flatnonzero(~np.isin(rating, np.arange(_LOW, _HIGH + 1)))
        if len(wrong):
            at = wrong[0]
            raise ValueError(
                f"M[{user[at]}, {item[at]}] is {rating[at]:g}, but ratings are whole "
                f"stars from {_LOW} to {_HIGH}"
            )
    except ImportError:
        raise
    # h5py raises many types for damaged bytes.
    except Exception as error:
        raise DataFileError(
            f"{str(path)!r} is not in the official format of Douban ({error}).", path
        ) from error
    return pd.DataFrame(
        {"user": user, "item": item, "rating": rating, "is_test": is_test[user, item]}
    ).astype({"user": "int64", "item": "int64"})


def _read_matrices(path: Path) -> list[NDArray[Any]]:
    """Read the ratings and the indicators as matrices of shape (n_users, n_items)."""
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"Reading {str(path)!r} needs h5py, which is not installed. Install it "
            "with 'pip install h5py'."
        ) from error
    with h5py.File(path, "r") as file:
        for name in _MATRICES:
            if getattr(file[name], "ndim", None) != 2:
                raise ValueError(f"{name} is not a dense matrix")
        # MATLAB stores columns one after the other, so h5py sees the transpose.
        return [file[name][()].T for name in _MATRICES]
