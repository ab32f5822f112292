import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from skrec.datasets import join_reviews, load_amazon

REVIEWS = [
    {
        "reviewerID": "A1",
        "asin": "B2",
        "reviewerName": "Ann",
        "helpful": [0, 1],
        "reviewText": 'Better than "Caf\u00e9".\nNA',
        "overall": 5.0,
        "summary": "Great",
        "unixReviewTime": 30,
        "reviewTime": "01 1, 1970",
    },
    {"reviewerID": "A2", "asin": "B1", "overall": 1.0, "unixReviewTime": 10},
    {"reviewerID": "A1", "asin": "B2", "overall": 2.0, "unixReviewTime": 20}
    | {"reviewText": "At first, I was not convinced."},
]
META = [
    {"asin": "B1", "description": "It's a film."},
    {"asin": "B2", "title": "no description"},
    {"asin": "B3", "description": 'Never "rated".'},
]


def review(**changes):
    return json.dumps(REVIEWS[0] | changes)


def write(path, lines, compress):
    text = "".join(f"{line}\n" for line in lines)
    if compress:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)


@pytest.fixture(params=[True, False])
def home(request, tmp_path):
    folder = tmp_path / "amazon"
    folder.mkdir()
    write(folder / "reviews_Video.json", map(json.dumps, REVIEWS), request.param)
    write(folder / "meta_Video.json", map(repr, META), request.param)
    return tmp_path


def test_ratings_and_descriptions_equal_the_files(home):
    videos = load_amazon("Video", data_home=home)
    assert videos.data.to_numpy().tolist() == [["A1", "B2"], ["A2", "B1"]]
    assert videos.target.tolist() == [5.0, 1.0]  # the latest of two ratings
    assert videos.timestamps.tolist() == [30, 10]
    expected = {"B1": "It's a film.", "B3": 'Never "rated".'}
    assert videos.item_texts.to_dict() == expected


def test_reviews_are_those_of_the_ratings(home):
    videos = load_amazon("Video", data_home=home)
    # The first user's review is the one of the latest rating; the second wrote nothing.
    assert videos.reviews.tolist() == ['Better than "Caf\u00e9".\nNA', ""]
    assert videos.reviews.index.equals(videos.data.index)
    joined = join_reviews(videos.data, videos.reviews)
    assert joined.to_dict() == {"B2": videos.reviews[0]}
    assert joined.index.dtype == videos.data["item"].dtype


def test_return_x_y(home):
    X, y = load_amazon("Video", data_home=home, return_X_y=True)
    assert X.shape == (2, 2)
    assert len(y) == 2


def test_metadata_may_be_missing(tmp_path):
    (tmp_path / "amazon").mkdir()
    write(tmp_path / "amazon/reviews_Video_5.json", map(json.dumps, REVIEWS), True)
    assert load_amazon("Video", data_home=tmp_path).item_texts.empty


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(OSError, match=r"has no reviews_Amazon_Instant_Video.json.gz"):
        load_amazon(data_home=tmp_path)


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("no object", "line 2 is not an object"),
        ("[1, 2]", r"line 2 is not an object .*\(it is a list\)"),
        ("5", r"line 2 is not an object .*\(it is a int\)"),
        ("{[]: 1}", "line 2 is not an object"),
        ('{"asin": "B1"}', "line 2 has no 'reviewerID'"),
        (review(reviewerID=None), "has None as 'reviewerID', which is not a string"),
        (review(asin=7), "has 7 as 'asin', which is not a string"),
        (review(overall=None), "has None as 'overall', which is not a number from 1"),
        (review(overall=float("nan")), "has nan as 'overall'"),
        (review(overall=6), "has 6 as 'overall'"),
        (review(unixReviewTime=None), "has None as 'unixReviewTime', which is not an"),
        (review(reviewText=None), "has None as 'reviewText', which is not a string"),
        (review(reviewText=["a"]), "line 2 has .* as 'reviewText', which is not a st"),
        (review(unixReviewTime=2**63), "as 'unixReviewTime', which is not an integer"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, match):
    (tmp_path / "amazon").mkdir()
    lines = [json.dumps(REVIEWS[0]), line]
    write(tmp_path / "amazon/reviews_Video.json", lines, False)
    with pytest.raises(OSError, match=match):
        load_amazon("Video", data_home=tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "{'description': 'cat'}",
        "{'asin': 3, 'description': 'cat'}",
        "{'asin': 'B1', 'description': ['cat']}",
        "['asin']",
    ],
)
def test_damaged_metadata_are_named(home, line):
    for path in (home / "amazon").glob("meta*"):
        path.unlink()
    write(home / "amazon" / "meta_Video.json", [repr(META[0]), line], False)
    with pytest.raises(OSError, match=r"meta_Video.json', line 2 "):
        load_amazon("Video", data_home=home)


def test_blank_lines_and_a_byte_order_mark_are_skipped(tmp_path):
    (tmp_path / "amazon").mkdir()
    text = "\ufeff" + review() + "\r\n\r\n" + review(asin="B1") + "\n\n"
    (tmp_path / "amazon/reviews_Video.json").write_bytes(text.encode())
    X, _ = load_amazon("Video", data_home=tmp_path, return_X_y=True)
    assert X["item"].tolist() == ["B2", "B1"]


def test_a_file_without_reviews_is_named(tmp_path):
    (tmp_path / "amazon").mkdir()
    (tmp_path / "amazon/reviews_Video.json").write_text("\n")
    with pytest.raises(OSError, match=r"reviews_Video.json' has no reviews"):
        load_amazon("Video", data_home=tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("reviews_Video.json", b'{"asin": "\xff"}\n'),
        ("reviews_Video.json.gz", gzip.compress(review().encode())[:-20]),
        ("reviews_Video.json.gz", review().encode()),
    ],
    ids=["not UTF-8", "truncated", "not compressed"],
)
def test_a_damaged_file_is_named(tmp_path, name, content):
    (tmp_path / "amazon").mkdir()
    (tmp_path / "amazon" / name).write_bytes(content)
    with pytest.raises(OSError, match=f"{name}'(, line 1 is not UTF-8| is damaged)"):
        load_amazon("Video", data_home=tmp_path)


# -- real data -----------------------------------------------------------------------


def test_no_test_review_is_in_a_document_of_real_data():
    home = os.environ.get("SKREC_DATA")
    name = "reviews_Musical_Instruments_5.json.gz"
    if not home or not (Path(home) / "amazon" / name).is_file():
        pytest.skip(f"SKREC_DATA names no folder with amazon/{name}")
    dataset = load_amazon("Musical_Instruments")
    assert len(dataset.reviews) == len(dataset.data) == 10_261
    assert (dataset.reviews != "").sum() == 10_254
    is_test = np.arange(len(dataset.data)) % 10 == 0
    documents = join_reviews(dataset.data[~is_test], dataset.reviews[~is_test])
    held_out = zip(dataset.data["item"][is_test], dataset.reviews[is_test], strict=True)
    assert not any(text and text in documents.get(item, "") for item, text in held_out)
    assert set(documents.index) == set(dataset.data["item"][~is_test])
