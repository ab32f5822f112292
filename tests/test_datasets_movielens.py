"""The official MovieLens formats, read from archives in the data folder."""

import gzip
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyRegressor
from sklearn.model_selection import cross_validate

from skrec.datasets import _lines, _movielens, fetch_movielens

# The same three ratings in every format, the last in half stars if allowed.
WHOLE = [(1, 10, 5, 978300760), (300, 2, 3, 978302109), (1, 70000, 1, 978301968)]
HALF = [*WHOLE[:2], (1, 70000, 0.5, 978301968)]


def lines(separator, rows, header=None):
    rows = [header] * bool(header) + [separator.join(map(str, row)) for row in rows]
    return "\n".join(rows) + "\n"


def u_item(item, title, *genres):
    flags = ["1" if genre in genres else "0" for genre in range(19)]
    return (item, title, "01-Jan-1995", "", "http://us.imdb.com/M/x", *flags)


def archive_100k():
    items = [
        u_item(2, "Cité des enfants perdus, La (1995)", 1, 15),
        u_item(10, "Land Before Time III (1995) (V)", 3, 4),
        u_item(70000, "unknown", 0),
    ]
    users = [
        (300, 24, "M", "technician", "T8H1N"),
        (1, 53, "F", "none", "00501"),
    ]
    files = {
        "u.data": lines("\t", WHOLE),
        "u.item": lines("|", items),
        "u.user": lines("|", users),
        "u1.base": lines("\t", [WHOLE[2], WHOLE[0]]),
        "u1.test": lines("\t", WHOLE[1:2]),
        "u2.base": lines("\t", WHOLE[1:]),
        "u2.test": lines("\t", WHOLE[:1]),
        "u3.base": lines("\t", WHOLE[1:]),
    }
    return {f"ml-100k/{name}": text.encode("latin-1") for name, text in files.items()}


def archive_1m():
    users = [(300, "M", 25, 16, "98107-2117"), (1, "F", 1, 10, "00501")]
    files = {"ml-1m/users.dat": lines("::", users).encode()}
    return archive_dat("ml-1m", WHOLE, "latin-1") | files


def archive_10m():
    tags = [
        (1, 10, " slow::but  good|er ", 978300760),
        (300, 2, "Amélie", 978300760),
        (300, 10, "slow", 978300761),
        (300, 70000, " ", 978300761),
    ]
    files = {"ml-10M100K/tags.dat": lines("::", tags).encode()}
    return archive_dat("ml-10M100K", HALF, "utf-8") | files


def archive_dat(folder, ratings, encoding):
    # str.splitlines splits at U+0085, which is a character of a Windows code page.
    items = [
        (10, "Star Wars: Episode IV (1977)", "Action|Sci-Fi"),
        (2, "Les Misérables\x85 :: Part 2 (1995)", "Drama"),
        (70000, "None (2000)", "Film-Noir"),
    ]
    return {
        f"{folder}/ratings.dat": lines("::", ratings).encode(),
        f"{folder}/movies.dat": lines("::", items).encode(encoding),
    }


def archive_csv(folder):
    items = [
        (10, '"American President, The (1995)"', "Comedy|Romance"),
        (2, "Babylon 5", "(no genres listed)"),
        (70000, '"Say ""Amélie"" (2001) "', "Comedy"),
    ]
    tags = [
        (1, 10, '"slow, but ""good"""', 978300760),
        (300, 2, "Amélie\x85", 978300760),
        (300, 10, "NA", 978300761),
        (300, 99, "of no movie", 978300761),
    ]
    ratings = lines(",", HALF, "userId,movieId,rating,timestamp")
    return {
        f"{folder}/ratings.csv": ratings.replace("\n", "\r\n").encode(),
        f"{folder}/movies.csv": lines(",", items, "movieId,title,genres").encode(),
        f"{folder}/tags.csv": lines(",", tags, "userId,movieId,tag,timestamp").encode(),
    }


TITLES_DAT = {
    2: ("Les Misérables\x85 :: Part 2", 1995, "Drama"),
    10: ("Star Wars: Episode IV", 1977, "Action|Sci-Fi"),
    70000: ("None", 2000, "Film-Noir"),
}
TITLES_CSV = {
    2: ("Babylon 5", None, "(no genres listed)"),
    10: ("American President, The", 1995, "Comedy|Romance"),
    70000: ('Say "Amélie"', 2001, "Comedy"),
}
TITLES_100K = {
    2: ("Cité des enfants perdus, La", 1995, "Action|Sci-Fi"),
    10: ("Land Before Time III", 1995, "Animation|Children's"),
    70000: ("unknown", None, "unknown"),
}
TAGS_DAT = {2: "Amélie", 10: "slow::but good er|slow", 70000: None}
TAGS_CSV = {2: "Amélie", 10: 'slow, but "good"|NA', 70000: None}
# version: (archive's name, its files, ratings, movies, type of the cached ratings)
CASES = {
    "100k": ("ml-100k", archive_100k(), WHOLE, TITLES_100K, np.uint8),
    "1m": ("ml-1m", archive_1m(), WHOLE, TITLES_DAT, "u1"),
    "10m": ("ml-10m", archive_10m(), HALF, TITLES_DAT, "f2"),
    "latest-small": (
        "ml-latest-small",
        archive_csv("ml-latest-small"),
        HALF,
        TITLES_CSV,
        "f2",
    ),
    "25m": ("ml-25m", archive_csv("ml-25m"), HALF, TITLES_CSV, "f2"),
    "32m": ("ml-32m", archive_csv("ml-32m"), HALF, TITLES_CSV, "f2"),
}


@pytest.fixture
def fetch(tmp_path, monkeypatch):
    """Pack files into the archive of a version and fetch it."""

    def fetch(version, files, **options):
        archive = _movielens.ARCHIVES[version]._replace(md5=None)
        monkeypatch.setitem(_movielens.ARCHIVES, version, archive)
        with zipfile.ZipFile(tmp_path / f"{archive.name}.zip", "w") as members:
            for name, content in files.items():
                members.writestr(name, content)
        return fetch_movielens(
            version, data_home=tmp_path, download_if_missing=False, **options
        )

    return fetch


@pytest.mark.parametrize("version", CASES)
def test_ratings_are_read_exactly_and_in_order(fetch, version):
    _, files, ratings, _, _ = CASES[version]
    dataset = fetch(version, files)
    assert dataset.data.columns.tolist() == ["user", "item"]
    assert (dataset.data.dtypes == np.int64).all()
    assert dataset.target.dtype == np.float64
    assert dataset.target.name == "rating"
    assert dataset.timestamps.dtype == np.int64
    found = zip(
        *dataset.data.to_numpy().T.tolist(),
        dataset.target,
        dataset.timestamps.tolist(),
        strict=True,
    )
    assert list(found) == ratings


@pytest.mark.parametrize("version", CASES)
def test_movies_are_read_exactly(fetch, version):
    _, files, _, movies, _ = CASES[version]
    dataset = fetch(version, files)
    assert dataset.movies.index.name == "item"
    assert dataset.movies["year"].dtype == "Int64"
    table = dataset.movies.astype({"year": object}).replace({pd.NA: None})
    found = table[["title", "year", "genres"]].apply(tuple, axis=1).to_dict()
    assert found == movies


@pytest.mark.parametrize("version", CASES)
def test_tags_of_a_movie_are_joined(fetch, version):
    movies = fetch(version, CASES[version][1]).movies
    if version in ("100k", "1m"):
        assert movies.columns.tolist() == ["title", "year", "genres"]
    else:
        tags = movies["tags"].astype(object)
        found = tags.where(tags.notna(), None).to_dict()
        assert found == (TAGS_DAT if version == "10m" else TAGS_CSV)


@pytest.mark.parametrize("version", ["100k", "1m", "10m"])
def test_lines_may_end_as_on_windows(fetch, version):
    files = CASES[version][1]
    expected = fetch(version, files)
    shutil.rmtree(Path(expected.movies_filename).parent)
    found = fetch(version, {n: c.replace(b"\n", b"\r\n") for n, c in files.items()})
    pd.testing.assert_frame_equal(found.movies, expected.movies)
    if version != "10m":
        pd.testing.assert_frame_equal(found.users, expected.users)


def test_an_archive_without_tags_has_no_such_column(fetch):
    files = CASES["25m"][1].copy()
    del files["ml-25m/tags.csv"]
    assert fetch("25m", files).movies.columns.tolist() == ["title", "year", "genres"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (
            "100k",
            {300: (24, "M", "technician", "T8H1N"), 1: (53, "F", "none", "00501")},
        ),
        (
            "1m",
            {
                300: (25, "M", "self-employed", "98107-2117"),
                1: (1, "F", "K-12 student", "00501"),
            },
        ),
    ],
)
def test_users_are_read_exactly(fetch, tmp_path, version, expected):
    dataset = fetch(version, CASES[version][1])
    users = dataset.users
    assert users.columns.tolist() == ["age", "gender", "occupation", "zip_code"]
    assert users.index.name == "user"
    assert users["age"].dtype == np.int64
    assert users.apply(tuple, axis=1).to_dict() == expected
    path = tmp_path / CASES[version][0] / "users.csv.gz"
    assert dataset.users_filename == str(path)


@pytest.mark.parametrize("version", ["10m", "latest-small", "25m", "32m"])
def test_versions_without_users_have_none(fetch, version):
    dataset = fetch(version, CASES[version][1])
    assert dataset.users is None
    assert dataset.users_filename is None


@pytest.mark.parametrize("version", ["100k", "1m"])
def test_a_cache_without_users_is_read(fetch, tmp_path, version):
    name, files, *_ = CASES[version]
    movies = fetch(version, files).movies
    (tmp_path / name / "users.csv.gz").unlink()
    dataset = fetch(version, files)
    assert dataset.users is None
    pd.testing.assert_frame_equal(dataset.movies, movies)


@pytest.mark.parametrize("version", CASES)
def test_ids_are_of_the_type_of_those_in_the_ratings(fetch, version):
    dataset = fetch(version, CASES[version][1])
    assert dataset.movies.index.dtype == dataset.data["item"].dtype
    assert set(dataset.data["item"]) <= set(dataset.movies.index)
    if dataset.users is not None:
        assert dataset.users.index.dtype == dataset.data["user"].dtype
        assert set(dataset.data["user"]) <= set(dataset.users.index)


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Seven (a.k.a. Se7en) (1995)", ("Seven (a.k.a. Se7en)", 1995)),
        ("Death Note (2006\u20132007)", ("Death Note", 2006)),
        ("Fawlty Towers (1975-1979)", ("Fawlty Towers", 1975)),
        ("Big Bang Theory, The (2007-)", ("Big Bang Theory, The", 2007)),
        ("Diplomatic Immunity (2009\u2013 )", ("Diplomatic Immunity", 2009)),
        ("1984 (1956)", ("1984", 1956)),
        ("Pixar Story, The", ("Pixar Story, The", None)),
        ("Stranger (Das Millionenspiel)", ("Stranger (Das Millionenspiel)", None)),
    ],
)
def test_year_is_taken_out_of_the_title(fetch, title, expected):
    content = f'movieId,title,genres\n3,"{title}",Drama\n'.encode()
    files = CASES["25m"][1] | {"ml-25m/movies.csv": content}
    movie = fetch("25m", files).movies.loc[3]
    assert movie["title"] == expected[0]
    assert (None if pd.isna(movie["year"]) else movie["year"]) == expected[1]


@pytest.mark.parametrize("version", CASES)
def test_texts_of_archives_are_titles_and_genres(fetch, version):
    _, files, _, movies, _ = CASES[version]
    dataset = fetch(version, files)
    assert dataset.text_source == "title and genres"
    assert dataset.item_texts.to_dict() == {
        item: f"{title} {genres}".replace("|", " ").replace(" (no genres listed)", "")
        for item, (title, _, genres) in movies.items()
    }


@pytest.mark.parametrize("version", CASES)
def test_cache_holds_small_exact_arrays(fetch, tmp_path, version):
    name, files, ratings, _, dtype = CASES[version]
    fetch(version, files)
    with np.load(tmp_path / name / "ratings.npz", allow_pickle=False) as arrays:
        assert arrays.files == ["user", "item", "rating", "timestamp"]
        assert [arrays[n].dtype for n in arrays.files] == ["u2", "u4", dtype, "u4"]
        assert arrays["rating"].tolist() == [row[2] for row in ratings]
    texts = pd.read_csv(tmp_path / name / "texts.csv.gz")
    tags = [] if version in ("100k", "1m") else ["tags"]
    assert texts.columns.tolist() == ["item", "title", "year", "genres", *tags]
    users = tmp_path / name / "users.csv.gz"
    assert users.exists() == (version in ("100k", "1m"))


def test_parts_of_a_large_file_are_joined_exactly(fetch, monkeypatch):
    monkeypatch.setattr(_lines, "_BLOCK", 1)
    dataset = fetch("10m", CASES["10m"][1])
    assert dataset.data.to_numpy().tolist() == [list(row[:2]) for row in HALF]
    assert dataset.target.tolist() == [row[2] for row in HALF]


def test_description_tells_size_terms_and_citation(fetch):
    description = fetch("100k", CASES["100k"][1]).DESCR
    assert "3 ratings of 3 movies by 2 users" in description
    assert "from 1 to 5 stars, with a mean of 3.00000" in description
    assert "research" in description
    assert "Harper" in description


def test_return_X_y(fetch):
    X, y = fetch("1m", CASES["1m"][1], return_X_y=True)
    assert X.shape == (3, 2)
    assert y.tolist() == [5, 3, 1]


def test_splits_of_100k_are_positions(fetch, tmp_path):
    dataset = fetch("100k", CASES["100k"][1])
    found = {k: [part.tolist() for part in v] for k, v in dataset.splits.items()}
    assert found == {"u1": [[0, 2], [1]], "u2": [[1, 2], [0]]}
    assert (tmp_path / "ml-100k" / "u1.base").is_file()


def test_splits_serve_as_cv(fetch):
    dataset = fetch("100k", CASES["100k"][1])
    result = cross_validate(
        DummyRegressor(),
        dataset.data,
        dataset.target,
        cv=list(dataset.splits.values()),
        scoring="neg_mean_absolute_error",
    )
    np.testing.assert_allclose(result["test_score"], [0, -3])


def test_split_of_other_ratings_is_refused(fetch):
    files = CASES["100k"][1] | {"ml-100k/u1.test": b"1\t99\t3\t0\n"}
    with pytest.raises(OSError, match=r"u1\.test lists ratings .* first in line 1"):
        fetch("100k", files)


def test_other_versions_have_no_splits(fetch):
    assert fetch("1m", CASES["1m"][1]).splits == {}


@pytest.mark.parametrize("column", ["text", "plot"])
def test_texts_already_in_the_cache_are_kept(fetch, tmp_path, column):
    (tmp_path / "ml-1m").mkdir()
    texts = pd.DataFrame(
        {"item": [10, 2], "title": ["a", "b"], "year": ["1977", "V"]}
        | {"genres": ["Drama War", "Drama"], column: ["NA is a word", None]}
    )
    texts.to_csv(tmp_path / "ml-1m" / "texts.csv.gz", index=False)
    dataset = fetch("1m", CASES["1m"][1])
    assert dataset.text_source == column
    assert dataset.item_texts.to_dict() == {10: "NA is a word"}
    assert dataset.movies.columns.tolist() == ["title", "year", "genres", "plot"]
    assert dataset.movies["plot"].dropna().to_dict() == {10: "NA is a word"}
    assert dataset.movies["genres"].tolist() == ["Drama|War", "Drama"]
    assert dataset.movies["year"].isna().tolist() == [False, True]


def test_years_in_cached_titles_are_taken_out(fetch, tmp_path):
    (tmp_path / "ml-25m").mkdir()
    rows = [
        (10, "American President, The (1995)", 1995, "Comedy"),
        (2, "Moonlight (1995) ", None, "Drama"),
        (3, "Nineteen (1984)", 2001, "Drama|War"),
    ]
    columns = ["item", "title", "year", "genres"]
    table = pd.DataFrame(rows, columns=columns).assign(source="mine")
    table.to_csv(tmp_path / "ml-25m" / "texts.csv.gz", index=False)
    dataset = fetch("25m", CASES["25m"][1])
    expected = ["American President, The", "Moonlight", "Nineteen (1984)"]
    assert dataset.movies["title"].tolist() == expected
    assert dataset.movies["year"].tolist() == [1995, 1995, 2001]
    assert "source" not in dataset.movies  # no feature of a movie
    assert dataset.item_texts[10] == "American President, The (1995) Comedy"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("users.csv.gz", "user,gender,age\n1,F,1\n", "occupation"),
        ("users.csv.gz", "user,gender,age,occupation,zip\n1,F,1,21,5\n", "pation 21"),
        ("users.csv.gz", "user,gender,age,occupation,zip\n1,F,x,2,5\n", "'x'"),
        (
            "users.csv.gz",
            "user,gender,age,occupation,zip\n1,F,1,2,5\n1,F,1,2,5\n",
            "user id 1 twice",
        ),
        ("texts.csv.gz", "item,title,year,genres\n1,a,1,b\n1,a,1,b\n", "id 1 twice"),
        (
            "texts.csv.gz",
            "item,title,year,genres\n,a,1,b\n",
            "line 2 has '' as item id",
        ),
    ],
)
def test_damaged_cached_table_is_refused(fetch, tmp_path, name, content, reason):
    fetch("1m", CASES["1m"][1])
    (tmp_path / "ml-1m" / name).write_bytes(gzip.compress(content.encode()))
    with pytest.raises(OSError, match=rf"cached files in .* are damaged .*{reason}"):
        fetch("1m", CASES["1m"][1])


@pytest.mark.parametrize(
    ("version", "name", "content", "reason"),
    [
        ("1m", "ml-1m/ratings.dat", b"", "has no ratings"),
        ("1m", "ml-1m/ratings.dat", b"1::2::3::3\n1::2::x::3\n", "line 2: '1::2::x"),
        ("1m", "ml-1m/movies.dat", b"1::Title\n", "not enough values"),
        ("1m", "ml-1m/movies.dat", b"1::a::b\n1:a::b::c\n", r"line 2 has '1:a' as it"),
        ("1m", "ml-1m/movies.dat", b"1::a::b\n2::a::b\n1::c::d\n", "line 3 has the it"),
        ("1m", "ml-1m/users.dat", b"1::F::1::10\n", "users.dat, line 1 has 4 fields"),
        ("1m", "ml-1m/users.dat", b"1::F::1::21::0\n", "21 as occupation, but"),
        ("1m", "ml-1m/users.dat", b"1::x::1::20::0\n", "'x' as gender"),
        ("1m", "ml-1m/users.dat", b"1::F::-1::20::0\n", "'-1' as age, which is not"),
        ("1m", "ml-1m/users.dat", b"1::F::1::1::0\n" * 2, "id 1 again, after line 1"),
        ("100k", "ml-100k/u.user", b"1|5|M|none|0\n1.5|5|M|a|0\n", "line 2 has '1.5'"),
        ("100k", "ml-100k/u.user", b"1|5|M|none\n", "u.user, line 1 has 4 fields"),
        ("100k", "ml-100k/u.item", b"1|Title\n", "2 fields"),
        (
            "100k",
            "ml-100k/u.item",
            b"1|a|b|c|d" + b"|0" * 18 + b"|2\n",
            "line 1 has gen",
        ),
        ("10m", "ml-10M100K/tags.dat", b"1::2::3\n", "tags.dat, line 1 has not enough"),
        ("10m", "ml-10M100K/tags.dat", b"1::2::a::b\n", "'b' as time"),
        ("25m", "ml-25m/tags.csv", b"h\n1,2,a,3\n1,2,a,b,3\n", "line 3 has 5 fields"),
        ("25m", "ml-25m/tags.csv", b"h\n1,2," + b"a" * 200_000, "line 2: field larger"),
        ("25m", "ml-25m/tags.csv", b"h\n1,2,\xff,3", "tags.csv, line 2 is not encoded"),
        ("25m", "ml-25m/movies.csv", b"movieId,title,genres\n1,a\n", "columns"),
        ("25m", "ml-25m/movies.csv", b"movieId,title,genres\n1,\xff,b\n", "utf-8"),
        ("10m", "ml-10M100K/ratings.dat", b"1::2::3.3::4\n", "half a star"),
        ("10m", "ml-10M100K/ratings.dat", b"1::2::-3::4\n", "rating is -3, but"),
        ("10m", "ml-10M100K/ratings.dat", b"1::2::300::4\n", "rating is 300, but"),
        (
            "10m",
            "ml-10M100K/ratings.dat",
            b"1::2::::4\n",
            "ratings.dat, line 1: '1::2::::4'",
        ),
        ("1m", "ml-1m/movies.dat", b"%d::Title::Drama\n" % (2**70), "too large"),
    ],
)
def test_archive_in_another_format_is_refused(
    fetch, tmp_path, version, name, content, reason
):
    files = CASES[version][1] | {name: content}
    with pytest.raises(OSError, match=rf"not in the official format of .*{reason}"):
        fetch(version, files)
    assert not (tmp_path / CASES[version][0]).exists()


def test_archive_without_a_file_is_refused(fetch):
    with pytest.raises(OSError, match=r"official format of ml-1m .*ml-1m/movies\.dat"):
        fetch("1m", {"ml-1m/README": b""})


@pytest.mark.parametrize(
    ("options", "parameter"),
    [
        ({"version": "ml-1m"}, "version"),
        ({"data_home": 3}, "data_home"),
        ({"download_if_missing": "no"}, "download_if_missing"),
        ({"n_retries": -1}, "n_retries"),
        ({"delay": -1}, "delay"),
    ],
)
def test_wrong_parameters_are_refused(options, parameter):
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of fetch_movie"):
        fetch_movielens(**options)


def test_unknown_version_names_the_known_ones():
    with pytest.raises(ValueError, match=r"'100k'.* Got '20m' instead"):
        fetch_movielens("20m")


# -- real data -----------------------------------------------------------------------


def fetch_real(version):
    home = os.environ.get("SKREC_DATA")
    if not home or not (Path(home) / f"ml-{version}" / "ratings.npz").is_file():
        pytest.skip(f"SKREC_DATA names no folder with the real MovieLens {version}")
    return fetch_movielens(version, download_if_missing=False)


@pytest.mark.parametrize(
    ("version", "n_ratings", "n_users", "n_items", "mean", "n_rated_texts"),
    [
        ("100k", 100_000, 943, 1_682, 3.52986, 1_676),
        ("1m", 1_000_209, 6_040, 3_706, 3.58156, 3_685),
    ],
)
def test_facts_on_real_data(version, n_ratings, n_users, n_items, mean, n_rated_texts):
    dataset = fetch_real(version)
    assert len(dataset.data) == len(dataset.target) == len(dataset.timestamps)
    assert len(dataset.data) == n_ratings
    assert dataset.data["user"].nunique() == n_users
    assert dataset.data["item"].nunique() == n_items
    assert dataset.target.mean() == pytest.approx(mean, abs=5e-6)
    assert dataset.timestamps.min() >= -1
    rated = dataset.item_texts.index.isin(dataset.data["item"])
    assert rated.sum() == n_rated_texts
    assert dataset.item_texts.str.len().min() > 0
    assert set(dataset.data["item"]) <= set(dataset.movies.index)


def test_movies_and_users_of_real_data():
    dataset = fetch_real("1m")
    assert dataset.movies.columns.tolist() == ["title", "year", "genres", "plot"]
    assert dataset.movies["plot"].notna().sum() == 3_845
    assert len(dataset.users) == 6_040
    assert dataset.users["age"].unique().size == 7
    assert dataset.users["occupation"].unique().size == 21
    assert dataset.users["zip_code"].str.len().min() == 5
    dataset = fetch_real("latest-small")
    assert (len(dataset.movies), dataset.users) == (9_742, None)
    assert dataset.movies["tags"].notna().sum() == 1_572
    assert not dataset.movies["title"].str.contains(r"\(\d{4}").any()


def test_canonical_split_of_real_data():
    dataset = fetch_real("100k")
    train, test = dataset.splits["u1"]
    assert (len(train), len(test)) == (80_000, 20_000)
    assert np.array_equal(np.union1d(train, test), np.arange(100_000))
