"""Candidates, new users, and similar users and items."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from helpers import MODELS, fit, make_factorization, name_of, small
from sklearn.base import clone

from skrec import BaselineRegressor, BiasedMFRegressor, ConvMFRegressor, PMFRegressor
from skrec._serving import top_items
from skrec.datasets import make_ratings

pytestmark = [
    pytest.mark.filterwarnings("ignore:.* stopped at max_iter"),
]


@pytest.fixture(scope="module", params=MODELS, ids=name_of)
def model(request, R):
    return fit(clone(request.param), R)


@pytest.fixture(scope="module")
def plain(R):
    return small(BiasedMFRegressor, clip=False).fit(R)


# Candidates


def test_candidates_are_the_only_items(plain, R):
    found = plain.recommend(R[:4], 5, items=[3, 9, 21])
    assert set(found["item"]) <= {3, 9, 21}
    everything = plain.recommend(R[:4], 50)
    pd.testing.assert_frame_equal(
        found, everything[everything["item"].isin([3, 9, 21])].reset_index(drop=True)
    )


def test_candidates_may_depend_on_the_user(plain):
    items = {7: [1, 2], 3: np.array([30]), 99: [4]}
    found = plain.recommend([3, 7], items=items, exclude_seen=False)
    assert found["user"].tolist() == [3, 7, 7]
    assert set(found["item"][:1]) == {30}
    assert set(found["item"][1:]) == {1, 2}
    assert len(plain.recommend([3], items={3: []})) == 0


def test_excluded_items_are_not_recommended(plain):
    everything = plain.recommend([3, 7], 50, exclude_seen=False)
    best = everything.groupby("user")["item"].first()
    found = plain.recommend(
        [3, 7], 50, exclude_seen=False, exclude_items=[best[3], 999]
    )
    expected = everything[everything["item"] != best[3]].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)
    found = plain.recommend(
        [3, 7], 50, exclude_seen=False, exclude_items={7: [best[7]]}
    )
    is_hidden = (everything["user"] == 7) & (everything["item"] == best[7])
    pd.testing.assert_frame_equal(found, everything[~is_hidden].reset_index(drop=True))


def test_candidates_and_excluded_items_apply_in_every_chunk(plain, monkeypatch):
    options = {"items": range(5, 40), "exclude_items": {u: [u % 40] for u in range(80)}}
    whole = plain.recommend(range(80), 3, **options)
    monkeypatch.setattr("skrec._core.chunks.CHUNK", 50 * 64 * 7)
    pd.testing.assert_frame_equal(plain.recommend(range(80), 3, **options), whole)


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"items": [3, 99]}, ValueError, "items has 99, which the model does not know"),
        ({"items": "abc"}, TypeError, "items must be an array-like of item ids"),
        ({"items": 3}, TypeError, "items must be an array-like of item ids"),
        ({"items": {5: [1]}}, ValueError, "no candidates for the user 3"),
        ({"exclude_items": ["a"]}, ValueError, "item ids in X must be"),
    ],
)
def test_bad_candidates_are_refused(plain, options, error, match):
    with pytest.raises(error, match=match):
        plain.recommend([3], **options)


# One user


def test_one_user_gets_the_same_as_among_others(model):
    among = model.recommend([5, 6], 7)
    alone = model.recommend([6], 7)
    pd.testing.assert_frame_equal(
        alone, among[among["user"] == 6].reset_index(drop=True), rtol=1e-5
    )


def test_the_table_may_be_changed_without_changing_the_model(plain):
    before = plain.user_factors_.copy(), plain.items_.copy()
    found = plain.recommend([6], 7)
    found.loc[:, "item"] = 0
    found.loc[:, "rating"] = 0
    plain.transform([[6, 0]])[:] = 0
    np.testing.assert_array_equal(plain.user_factors_, before[0])
    np.testing.assert_array_equal(plain.items_, before[1])


def test_equal_scores_are_ranked_in_the_order_of_the_items(rng):
    scores = rng.integers(0, 4, size=(40, 30)).astype(np.float32)
    scores[:, 5] = -np.inf
    for k in (1, 4, 29, 30, 50):
        top, best = top_items(torch.as_tensor(scores), k)
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        np.testing.assert_array_equal(top, expected)
        np.testing.assert_array_equal(best, np.take_along_axis(scores, top, axis=1))


# New users


def test_new_users_are_recommended_what_their_rows_are(model, R):
    coo = R[:3].tocoo()
    names = np.array(["zoe", "yan", "xu"])
    ratings = pd.DataFrame({"who": names[coo.row], "what": coo.col, "r": coo.data})
    found = model.recommend_for(ratings.sample(frac=1, random_state=0), 4)
    assert found["user"].unique().tolist() == ["xu", "yan", "zoe"]
    expected = model.recommend(R[:3][[2, 1, 0]], 4)
    np.testing.assert_array_equal(found["item"], expected["item"])
    np.testing.assert_allclose(found["rating"], expected["rating"], rtol=1e-5)


def test_candidates_of_new_users_go_by_their_ids(plain):
    ratings = pd.DataFrame({"user": ["a", "b"], "item": [3, 4], "rating": [5, 1]})
    found = plain.recommend_for(ratings, items={"a": [3, 7], "b": [8]})
    assert found[["user", "item"]].to_numpy().tolist() == [["a", 7], ["b", 8]]
    found = plain.recommend_for(ratings, items=[3, 4], exclude_seen=False)
    assert len(found) == 4


def test_new_users_are_explained_from_their_ratings(plain):
    ratings = pd.DataFrame({"user": ["a", "a"], "item": [3, 4], "rating": [5, 1]})
    best = plain.recommend_for(ratings, 1)
    found = plain.explain(ratings, best["item"].item())
    assert found.sum() == pytest.approx(best["rating"].item(), abs=1e-5)
    assert set(found["rated item"].index) == {3, 4}


@pytest.mark.parametrize(
    ("ratings", "match"),
    [
        ([["a", 3, 5.0]], "ratings must be a DataFrame with three columns"),
        (pd.DataFrame({"user": ["a"], "item": [3]}), "got DataFrame of shape"),
        (
            pd.DataFrame({"user": ["a"], "item": [99], "rating": [3]}),
            "ratings has the item 99, which the model does not know",
        ),
        (pd.DataFrame({"user": ["a"], "item": [3], "rating": [np.nan]}), "NaN"),
    ],
)
def test_bad_ratings_of_new_users_are_refused(plain, ratings, match):
    with pytest.raises(ValueError, match=match):
        plain.recommend_for(ratings)


# Similar users and items


def test_similar_items_have_the_highest_cosines(plain):
    found = plain.similar_items([3, 8], 4)
    assert found.columns.tolist() == ["item", "similar_item", "similarity"]
    V = plain.item_factors_ / np.linalg.norm(plain.item_factors_, axis=1)[:, None]
    for item, part in found.groupby("item"):
        cosines = V @ V[item]
        cosines[item] = -np.inf
        expected = np.argsort(-cosines, kind="stable")[:4]
        np.testing.assert_allclose(part["similarity"], cosines[expected], rtol=1e-5)
        np.testing.assert_allclose(cosines[part["similar_item"]], cosines[expected])


def test_similar_users_have_the_highest_cosines(plain):
    found = plain.similar_users([3], 79)
    assert set(found["similar_user"]) == set(range(80)) - {3}
    assert (found["similarity"].diff()[1:] <= 0).all()


def test_all_models_with_factors_know_similar_items(model):
    if isinstance(model, BaselineRegressor):
        with pytest.raises(ValueError, match="knows no factors"):
            model.similar_items([3])
        return
    for found in (model.similar_items([3], 5), model.similar_users([3], 5)):
        assert len(found) == 5
        assert found["similarity"].between(-1.001, 1.001).all()


def test_items_with_the_same_text_are_similar():
    data = make_ratings(120, 60, density=0.3, text_words=60, random_state=0)
    texts = dict(enumerate(data.item_texts)) | {60: data.item_texts[7]}
    model = make_factorization(ConvMFRegressor, lambda_u="auto", lambda_v="auto")
    model.fit(*_pairs(data.R), item_texts=texts)
    described = model.similar_items([60], 60).set_index("similar_item")["similarity"]
    assert described[7] > described.median()


def test_items_of_which_nothing_is_known_are_not_similar(R):
    R = R.tolil()
    R[:, 7] = 0
    model = small(PMFRegressor).fit(R.tocsr())
    assert 7 not in set(model.similar_items([3], 60)["similar_item"])


def test_bad_arguments_of_similar_items_are_refused(plain):
    with pytest.raises(ValueError, match="does not know the item 99"):
        plain.similar_items([3, 99])
    with pytest.raises(ValueError, match="n_users must be a positive integer"):
        plain.similar_users([3], 0)


def _pairs(R):
    coo = R.tocoo()
    return np.column_stack([coo.row, coo.col]), coo.data


def test_sets_of_candidates(R):
    model = small(BiasedMFRegressor).fit(R)
    lists = model.recommend([3], 5, exclude_seen=False, items={4, 9})
    assert set(lists["item"]) == {4, 9}


def test_users_of_another_type_are_refused_in_a_mapping(R):
    model = small(BiasedMFRegressor).fit(R)
    with pytest.raises(TypeError, match="user"):
        model.recommend([3], 5, exclude_items={"3": [4]})
    assert len(model.recommend([3], 5, exclude_items={})) == 5


def test_nothing_is_similar_to_a_user_of_whom_nothing_is_known(R):
    empty = sp.vstack([R, sp.csr_array((1, R.shape[1]))], "csr")
    model = small(BiasedMFRegressor).fit(empty)
    with pytest.raises(ValueError, match="Nothing is known of the user 80"):
        model.similar_users([80])
