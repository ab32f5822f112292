import gzip
import json

import pytest

from skrec.datasets import load_amazon

REVIEWS = [
    {"reviewerID": "A1", "asin": "B2", "overall": 5.0, "unixReviewTime": 30},
    {"reviewerID": "A2", "asin": "B1", "overall": 1.0, "unixReviewTime": 10},
    {"reviewerID": "A1", "asin": "B2", "overall": 2.0, "unixReviewTime": 20},
]
META = [
    {"asin": "B1", "description": "It's a film."},
    {"asin": "B2", "title": "no description"},
    {"asin": "B3", "description": 'Never "rated".'},
]


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
        ("", "line 2 is not an object"),
        ('{"asin": "B1"}', "line 2 has no 'reviewerID'"),
    ],
)
def test_a_damaged_line_is_named(tmp_path, line, match):
    (tmp_path / "amazon").mkdir()
    lines = [json.dumps(REVIEWS[0]), line]
    write(tmp_path / "amazon/reviews_Video.json", lines, False)
    with pytest.raises(OSError, match=match):
        load_amazon("Video", data_home=tmp_path)
