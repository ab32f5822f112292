import numpy as np
import pytest

from skrec.datasets import _lines, load_netflix

RATINGS = {
    1: [(1488844, 3, "2005-09-06"), (822109, 5, "2005-05-13")],
    2: [(822109, 1, "2004-01-01")],
    10: [(7, 4, "2003-12-31"), (1488844, 2, "2005-01-01")],
}


def block(item):
    lines = [f"{user},{stars},{date}" for user, stars, date in RATINGS[item]]
    return "\n".join([f"{item}:", *lines]) + "\n"


@pytest.fixture(params=["training_set", "combined"])
def home(request, tmp_path):
    """The same ratings in both layouts."""
    folder = tmp_path / "netflix"
    (folder / "training_set").mkdir(parents=True)
    if request.param == "training_set":
        for item in RATINGS:
            path = folder / "training_set" / f"mv_{item:07}.txt"
            path.write_text(block(item))
    else:
        (folder / "combined_data_1.txt").write_text(block(1) + block(2))
        (folder / "combined_data_2.txt").write_text(block(10))
    titles = "1,2003,Dinosaur Planet\n2,NULL,Isle, of Man\n10,2001,Caf\u00e9\n"
    (folder / "movie_titles.txt").write_bytes(titles.encode("latin-1"))
    return tmp_path


@pytest.mark.parametrize("block", [1, 20, 10_000])
def test_ratings_and_titles_equal_the_files(home, monkeypatch, block):
    monkeypatch.setattr(_lines, "_BLOCK", block)
    netflix = load_netflix(data_home=home)
    expected = [(u, i, s, d) for i, rows in RATINGS.items() for u, s, d in rows]
    found = zip(
        netflix.data["user"].tolist(),
        netflix.data["item"].tolist(),
        netflix.target.tolist(),
        netflix.dates.astype(str).tolist(),
        strict=True,
    )
    assert list(found) == expected
    assert netflix.target.dtype == np.float64
    assert netflix.movies["title"].tolist() == [
        "Dinosaur Planet",
        "Isle, of Man",
        "Caf\u00e9",
    ]
    assert netflix.movies["year"].isna().tolist() == [False, True, False]


def test_return_x_y(home):
    X, y = load_netflix(data_home=home, return_X_y=True)
    assert X.shape == (5, 2)
    assert len(y) == 5


def test_titles_may_be_missing(home):
    (home / "netflix" / "movie_titles.txt").unlink()
    assert load_netflix(data_home=home).movies.empty


def test_missing_files_are_named(tmp_path):
    with pytest.raises(OSError, match="has neither training_set"):
        load_netflix(data_home=tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7,4,2003-12-31\n",
        "1:\n7,x,2003-12-31\n",
        "1:\n7,4,soon\n",
        "1:\nx,4,\n",
        # Values that a smaller type would change.
        "1:\n7,300,2003-12-31\n",
        "1:\n7,0,2003-12-31\n",
        "1:\n7,3.7,2003-12-31\n",
        "1:\n99999999999,4,2003-12-31\n",
        "99999999999:\n7,4,2003-12-31\n",
        "1.5:\n7,4,2003-12-31\n",
    ],
)
def test_a_damaged_file_is_named(tmp_path, text):
    folder = tmp_path / "netflix" / "training_set"
    folder.mkdir(parents=True)
    (folder / "mv_0000001.txt").write_text(text)
    with pytest.raises(OSError, match=r"mv_0000001.txt' is not in the official format"):
        load_netflix(data_home=tmp_path)


@pytest.mark.parametrize(
    "line",
    ["x,2003,Dinosaur Planet", "Dinosaur Planet", ",,", f"{'1' * 5000},2003,Long"],
)
def test_damaged_titles_are_named(home, line):
    (home / "netflix" / "movie_titles.txt").write_text(f"{line}\n")
    with pytest.raises(OSError, match=r"movie_titles.txt' is not in the official form"):
        load_netflix(data_home=home)
