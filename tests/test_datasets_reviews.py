"""Documents that contain the reviews of the given ratings and no others."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import train_test_split

from skrec import ConvMFRegressor
from skrec.datasets import join_reviews
from skrec.text import ItemTexts

X = pd.DataFrame({"user": [1, 2, 3, 1, 2], "item": ["b", "a", "b", "c", "b"]})
REVIEWS = pd.Series(["one", "two", "three", "", "five"])


def test_reviews_are_joined_in_the_order_of_the_ratings():
    documents = join_reviews(X, REVIEWS)
    expected = pd.Series(["two", "one\nthree\nfive"], index=["a", "b"], name="text")
    pd.testing.assert_series_equal(
        documents, expected.astype("str").rename_axis("item")
    )


def test_documents_of_users():
    documents = join_reviews(X, REVIEWS, side="user")
    assert documents.to_dict() == {1: "one", 2: "two\nfive", 3: "three"}
    assert documents.index.name == "user"
    assert documents.index.dtype == np.int64


@pytest.mark.parametrize("seed", range(5))
def test_held_out_reviews_are_in_no_document(seed):
    X_train, _, reviews_train, reviews_test = train_test_split(
        X, REVIEWS, test_size=2, random_state=seed
    )
    words = " ".join(join_reviews(X_train, reviews_train)).split()
    assert sorted(words) == sorted(filter(None, reviews_train))
    assert not set(words) & set(reviews_test)


def test_arrays_and_lists_give_the_same():
    expected = join_reviews(X, REVIEWS).to_dict()
    assert join_reviews(X.to_numpy(), REVIEWS.to_list()).to_dict() == expected
    array = REVIEWS.to_numpy(object)
    assert join_reviews(X.to_numpy().tolist(), array).to_dict() == expected
    assert join_reviews(X.set_index(X.index + 7), array).to_dict() == expected


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, "", " \n"])
def test_missing_and_blank_reviews_are_skipped(missing):
    documents = join_reviews(X, ["one", missing, missing, "four", "five"])
    assert documents.to_dict() == {"b": "one\nfive", "c": "four"}


def test_without_any_review_there_is_no_document():
    documents = join_reviews(X, [None] * 5, side="user")
    assert documents.empty
    assert documents.index.dtype == np.int64
    assert documents.index.name == "user"


@pytest.mark.parametrize(
    ("reviews", "error", "match"),
    [
        ("review", TypeError, "1-D array-like .* got str"),
        (dict.fromkeys(range(5), "a"), TypeError, "1-D array-like .* got dict"),
        (np.full((5, 1), "a"), TypeError, "1-D array-like .* got ndarray"),
        (iter(["a"] * 5), TypeError, "1-D array-like"),
        (
            ["a"] * 4,
            ValueError,
            "4 reviews but 5 ratings in X: pass the .* only, split",
        ),
        (["a", "b", 3, "d", "e"], TypeError, "Review 2 is of type int, but"),
        (["a", ["b"], "c", "d", "e"], TypeError, "Review 1 is of type list, but"),
        (REVIEWS.set_axis(range(1, 6)), ValueError, "different indices, .*to_numpy"),
    ],
)
def test_unsuitable_reviews_are_refused(reviews, error, match):
    with pytest.raises(error, match=match):
        join_reviews(X, reviews)


def test_other_arguments_are_validated():
    with pytest.raises(
        ValueError, match="The 'side' parameter of join_reviews must be"
    ):
        join_reviews(X, REVIEWS, side="items")
    with pytest.raises(ValueError, match=re.escape("Expected 2D array, got 1D array")):
        join_reviews(X["user"], REVIEWS)


@pytest.mark.filterwarnings("ignore:.* stopped at max_iter")
def test_documents_are_texts_of_items():
    model = ConvMFRegressor(n_factors=2, max_iter=2, random_state=0)
    documents = ItemTexts(join_reviews(X[:4], ["guitar", "drum", "piano", ""]))
    model.fit(X[:4], [1, 2, 3, 4], item_texts=documents)
    assert model.items_.tolist() == ["a", "b", "c"]
