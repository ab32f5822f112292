import gzip
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from skrec.datasets import load_jester

JOKE = """<HTML>
<HEAD><TITLE>Joke {number}</TITLE></HEAD>
<BODY><TABLE><TD><FONT size="+1">
<!--begin of joke -->
{joke}
<!--end of joke -->
</TD></TABLE></BODY>
</HTML>
"""
# Two users in the first file and two in the third, of whom one rated nothing.
FIRST = [{0: -9.95, 99: 8.5}, {3: 0.0}]
THIRD = [{}, {1: 10.0, 2: -10.0}]
EXPECTED = [
    *[(0, 0, -9.95), (0, 99, 8.5), (1, 3, 0.0)],
    *[(3, 1, 10.0), (3, 2, -10.0)],
]


def csv(users, not_rated="99"):
    lines = []
    for ratings in users:
        values = [str(ratings.get(item, not_rated)) for item in range(100)]
        lines.append(",".join([str(len(ratings)), *values]) + "\n")
    return "".join(lines)


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "jester"
    folder.mkdir()
    (folder / "jester-data-1.csv").write_text(csv(FIRST))
    (folder / "jester-data-3.csv").write_text(csv(THIRD, not_rated="99.00"))
    return tmp_path


def write_compact(home):
    np.savez(
        home / "jester" / "ratings.npz",
        user=np.array([7, 7], dtype=np.int32),
        item=np.array([0, 99], dtype=np.int32),
        rating=np.array([2.28, -9.95], dtype=np.float32),
        is_test=np.array([True, False]),
    )


def test_ratings_equal_the_files(home):
    jester = load_jester(data_home=home)
    columns = [*jester.data.to_numpy().T.tolist(), jester.target.tolist()]
    assert [*zip(*columns, strict=True)] == EXPECTED
    assert jester.data.columns.tolist() == ["user", "item"]
    assert (jester.data.dtypes == np.int64).all()
    assert jester.target.dtype == np.float64
    assert jester.target.name == "rating"
    assert jester.is_test is None


def test_the_compact_file_comes_first_and_its_ratings_have_two_decimals(home):
    write_compact(home)
    jester = load_jester(data_home=home)
    assert jester.data.to_numpy().tolist() == [[7, 0], [7, 99]]
    assert jester.target.tolist() == [2.28, -9.95]
    assert jester.is_test.tolist() == [True, False]


def test_return_x_y(home):
    X, y = load_jester(data_home=home, return_X_y=True)
    assert X.shape == (5, 2)
    assert len(y) == 5


def test_jokes_may_be_missing(home):
    texts = load_jester(data_home=home).item_texts
    assert texts.empty
    assert texts.index.name == "item"


@pytest.mark.parametrize("subfolder", ["", "jokes"])
def test_jokes_are_the_marked_texts_without_markup(home, subfolder):
    folder = home / "jester" / subfolder
    folder.mkdir(exist_ok=True)
    joke = "Q. What&#39;s 3 < 4?<P>\n\nA. <i>True</i>, at the caf\xe9."
    jokes = {1: joke, 100: "None"}
    for number, joke in jokes.items():
        text = JOKE.format(number=number, joke=joke)
        (folder / f"init{number}.html").write_text(text, encoding="latin-1")
    texts = load_jester(data_home=home).item_texts
    expected = {0: "Q. What's 3 < 4? A. True , at the caf\xe9.", 99: "None"}
    assert texts.to_dict() == expected
    assert texts.index.name == "item"
    assert texts.name == "text"


def test_texts_of_the_compact_form_come_first(home):
    (home / "jester" / "init1.html").write_text(JOKE.format(number=1, joke="other"))
    texts = pd.DataFrame({"item": [2, 0, 1], "text": ["NA is a word", "None", ""]})
    texts.to_csv(home / "jester" / "texts.csv.gz", index=False)
    jester = load_jester(data_home=home)
    assert jester.item_texts.to_dict() == {2: "NA is a word", 0: "None"}


def test_missing_files_are_named(tmp_path):
    with pytest.raises(OSError, match=r"has neither jester-data-1.csv.*nor ratings.np"):
        load_jester(data_home=tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no ratings"),
        (csv(FIRST).replace(",", ";"), "line 1: "),
        ("n," + ",".join(map(str, range(100))) + "\n", "line 1: "),
        (csv(FIRST).replace("\n", ",\n"), "line 1: "),
        (
            csv([{5: 1}, {5: 10.5}, {5: 1}]),
            "line 2: a rating is 10.5, but they are from -10 to 10",
        ),
        (csv([{5: 1}, {5: ""}]), "line 2: "),
    ],
    ids=["empty", "semicolons", "header", "columns", "value", "blank"],
)
def test_a_damaged_file_is_named(home, text, reason):
    (home / "jester" / "jester-data-2.csv").write_text(text)
    match = rf"data-2.csv' is not in the official format of Jester \(.*{reason}"
    with pytest.raises(OSError, match=match):
        load_jester(data_home=home)


def test_a_damaged_joke_is_named(home):
    (home / "jester" / "init2.html").write_text("<html>no joke</html>")
    with pytest.raises(OSError, match=r"init2.html' is not in the official format of"):
        load_jester(data_home=home)


@pytest.mark.parametrize(
    "content",
    [
        b"item,text\n",
        gzip.compress(b"item,text\n0,a joke\n")[:-12],
        gzip.compress(b"item,joke\n0,a joke\n"),
        gzip.compress(b"item,text\nx,a joke\n"),
        gzip.compress(b""),
    ],
    ids=["not compressed", "truncated", "no text", "no id", "empty"],
)
def test_damaged_texts_are_named(home, content):
    (home / "jester" / "texts.csv.gz").write_bytes(content)
    with pytest.raises(OSError, match=r"texts.csv.gz' is damaged \(.*Replace it"):
        load_jester(data_home=home)


def test_facts_on_real_data():
    if not (Path(os.environ.get("SKREC_DATA", "")) / "jester").is_dir():
        pytest.skip("needs Jester in the folder SKREC_DATA")
    jester = load_jester()
    assert jester.data["item"].between(0, 99).all()
    assert jester.target.between(-10, 10).all()
    assert (jester.target == jester.target.round(2)).all()
    assert jester.item_texts.index.tolist() == list(range(100))
    assert jester.item_texts[0].startswith("A man visits the doctor")
    if len(jester.data) == 29_000:  # the sample of 400 users
        assert jester.data.nunique().tolist() == [400, 100]
        assert (jester.target.min(), jester.target.max()) == (-9.95, 9.9)
