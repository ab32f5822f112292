"""Downloads and the cache, with a small server on this machine."""

import hashlib
import io
import os
import re
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from skrec import _progress
from skrec.datasets import (
    _base,
    _movielens,
    clear_data_home,
    fetch_movielens,
    get_data_home,
)

NAME = "ml-latest-small"
CACHED = {f"{NAME}/ratings.npz", f"{NAME}/texts.csv.gz"}
EXPECTED_TARGET = [4.0, 0.5, 3.5, 5.0] * 500


def make_archive(name=NAME):
    """Make an archive in the newer format, large enough to interrupt its transfer."""
    rng = np.random.RandomState(0)
    ratings = "".join(
        f"{user},{user % 7 + 1},{rating},{rng.randint(10**9)}\n"
        for user, rating in enumerate(EXPECTED_TARGET, start=1)
    )
    movies = "".join(f"{item},Film {item} (1999),Drama\n" for item in range(1, 8))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            f"{name}/ratings.csv", "userId,movieId,rating,timestamp\n" + ratings
        )
        archive.writestr(f"{name}/movies.csv", "movieId,title,genres\n" + movies)
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serve ``server.files`` with the faults that a test requests."""

    def do_GET(self):
        server, name, range_ = self.server, self.path[1:], self.headers.get("Range")
        server.requests.append((name, range_))
        content, start = server.files.get(name), self._start(range_)
        fault = server.faults.pop(0) if server.faults else 200
        if isinstance(fault, str):
            self.send_response(302)
            self.send_header("Location", fault)
            self.end_headers()
        elif fault != 200:
            self.send_error(fault)
        elif content is None:
            self.send_error(404)
        elif start and start >= len(content):
            self.send_error(416)
        else:
            self._send(content, start)

    def _start(self, range_):
        if range_ is None or not self.server.knows_ranges:
            return 0
        return int(re.fullmatch(r"bytes=(\d+)-", range_).group(1))

    def _send(self, content, start):
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            start += self.server.range_error
            end = len(content) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
        self.end_headers()
        end = len(content)
        if self.server.cuts and not self.path.endswith(".md5"):
            end = self.server.cuts.pop(0)
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    archive = make_archive()
    md5 = hashlib.md5(archive, usedforsecurity=False).hexdigest()
    server.files = {
        f"{NAME}.zip": archive,
        f"{NAME}.zip.md5": f"MD5 ({NAME}.zip) = {md5}\n".encode(),
    }
    server.requests, server.faults, server.cuts = [], [], []
    server.knows_ranges, server.range_error = True, 0
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(_movielens, "_BASE_URL", url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetch(home, version="latest-small", **options):
    return fetch_movielens(version, data_home=home, **({"delay": 0} | options))


def files_in(home):
    paths = (path for path in home.rglob("*") if path.is_file())
    return {path.relative_to(home).as_posix() for path in paths}


def is_whole(dataset):
    return dataset.target.tolist() == EXPECTED_TARGET


# -- downloads -----------------------------------------------------------------------


def test_fetch_leaves_the_cache_and_nothing_else(server, tmp_path):
    dataset = fetch(tmp_path)
    assert is_whole(dataset)
    assert files_in(tmp_path) == CACHED
    assert dataset.data_filename == str(tmp_path / NAME / "ratings.npz")
    assert dataset.movies_filename == str(tmp_path / NAME / "texts.csv.gz")


def test_second_call_does_not_ask_the_server(server, tmp_path):
    fetch(tmp_path)
    server.requests.clear()
    assert is_whole(fetch(tmp_path, download_if_missing=False))
    assert server.requests == []


def test_checksum_in_the_other_notation_is_understood(server, tmp_path):
    md5 = server.files[f"{NAME}.zip.md5"].split()[-1]
    server.files[f"{NAME}.zip.md5"] = md5.upper() + f"  {NAME}.zip\n".encode()
    assert is_whole(fetch(tmp_path))


def test_wrong_checksum_is_an_error_that_leaves_nothing(server, tmp_path):
    server.files[f"{NAME}.zip.md5"] = b"0" * 32
    with pytest.raises(OSError, match=r"zip is damaged: its MD5 .* but 0{32} is"):
        fetch(tmp_path)
    assert files_in(tmp_path) == set()


def test_known_checksum_is_used_without_asking_for_it(server, tmp_path):
    server.files["ml-1m.zip"] = make_archive("ml-1m")
    md5 = _movielens.ARCHIVES["1m"].md5
    with pytest.raises(OSError, match=f"but {md5} is published.*call again"):
        fetch(tmp_path, "1m")
    assert server.requests == [("ml-1m.zip", None)]
    assert files_in(tmp_path) == set()


def test_without_published_checksum_a_sound_archive_is_taken(server, tmp_path):
    del server.files[f"{NAME}.zip.md5"]
    assert is_whole(fetch(tmp_path))


def corrupt_member(content):
    place = content.index(b"ratings.csv") + 500
    return content[:place] + bytes(8) + content[place + 8 :]


def corrupt_end(content):
    return content[:-300]


@pytest.mark.parametrize("corrupt", [corrupt_member, corrupt_end])
def test_without_published_checksum_a_damaged_archive_is_refused(
    server, tmp_path, corrupt
):
    del server.files[f"{NAME}.zip.md5"]
    server.files[f"{NAME}.zip"] = corrupt(server.files[f"{NAME}.zip"])
    with pytest.raises(OSError, match=r"zip (is damaged|is not a complete zip file)"):
        fetch(tmp_path)
    assert files_in(tmp_path) == set()


def test_page_in_place_of_a_checksum_is_refused(server, tmp_path):
    server.files[f"{NAME}.zip.md5"] = b"<html>Please log in</html>"
    with pytest.raises(OSError, match=r"no MD5 checksum but '<html>Please log in"):
        fetch(tmp_path)


def test_missing_archive_is_not_asked_for_twice(server, tmp_path):
    del server.files[f"{NAME}.zip"]
    with pytest.raises(OSError, match=r"Could not download .*404.*attempts: 1"):
        fetch(tmp_path)
    assert files_in(tmp_path) == set()


def test_server_error_is_retried(server, tmp_path):
    server.faults = [500, 503, 200, 429, 200]
    assert is_whole(fetch(tmp_path, n_retries=2))


def test_lasting_server_error_is_reported(server, tmp_path):
    server.faults = [500] * 9
    with pytest.raises(OSError, match=r"\.zip\.md5 \(HTTP Error 500.*attempts: 3"):
        fetch(tmp_path, n_retries=2)
    assert files_in(tmp_path) == set()


def test_broken_transfer_is_resumed_in_the_same_call(server, tmp_path):
    server.cuts = [1000, 3000]
    assert is_whole(fetch(tmp_path, n_retries=2))
    ranges = [range_ for name, range_ in server.requests if name.endswith("zip")]
    assert ranges == [None, "bytes=1000-", "bytes=3000-"]


def test_a_verbose_download_counts_the_bytes_that_were_there(
    server, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(_progress, "SECONDS", 0)
    server.cuts = [1000]
    assert is_whole(fetch(tmp_path, n_retries=1, verbose=True))
    size = len(server.files[f"{NAME}.zip"])
    lines = capsys.readouterr().out.splitlines()
    assert f"{NAME}.zip] 1,000 of {size:,} bytes ({1000 / size:.0%})" in lines[0]
    assert [
        line for line in lines if f"{size:,} of {size:,} bytes (100%)" in line
    ] == lines[-1:]


def test_broken_transfer_is_resumed_in_the_next_call(server, tmp_path):
    server.cuts = [1000]
    with pytest.raises(OSError, match=r"closed after 1000 of \d+ bytes"):
        fetch(tmp_path, n_retries=0)
    assert files_in(tmp_path) == {f"{NAME}.zip.part"}
    assert is_whole(fetch(tmp_path))
    assert server.requests[-1] == (f"{NAME}.zip", "bytes=1000-")
    assert files_in(tmp_path) == CACHED


def test_server_without_ranges_sends_everything_again(server, tmp_path):
    server.knows_ranges, server.cuts = False, [1000]
    assert is_whole(fetch(tmp_path, n_retries=1))


def test_wrong_range_is_not_appended(server, tmp_path):
    server.range_error, server.cuts = 7, [1000]
    assert is_whole(fetch(tmp_path, n_retries=2))
    assert server.requests[-1] == (f"{NAME}.zip", None)


def test_part_as_long_as_the_file_is_replaced(server, tmp_path):
    length = len(server.files[f"{NAME}.zip"])
    (tmp_path / f"{NAME}.zip.part").write_bytes(bytes(length))
    assert is_whole(fetch(tmp_path, n_retries=0))


def test_part_of_another_file_is_discarded(server, tmp_path):
    (tmp_path / f"{NAME}.zip.part").write_bytes(b"something else")
    with pytest.raises(OSError, match=r"discarded; call again"):
        fetch(tmp_path)
    assert files_in(tmp_path) == set()
    assert is_whole(fetch(tmp_path))


@pytest.mark.parametrize("kind", ["symbolic", "hard"])
def test_part_that_is_a_link_is_not_written_through(server, tmp_path, kind):
    other, home = tmp_path / "other", tmp_path / "home"
    other.write_bytes(b"a file of the user")
    home.mkdir()
    part = home / f"{NAME}.zip.part"
    part.symlink_to(other) if kind == "symbolic" else part.hardlink_to(other)
    assert is_whole(fetch(home))
    assert other.read_bytes() == b"a file of the user"
    assert files_in(home) == CACHED


@pytest.mark.parametrize(
    "address", ["ftp://127.0.0.1/x", "file:///etc/passwd", "data:,x"]
)
def test_redirects_to_other_protocols_are_refused(server, tmp_path, address):
    server.faults = [200, address]
    with pytest.raises(OSError, match=r"redirected|not allowed"):
        fetch(tmp_path, n_retries=0)
    assert files_in(tmp_path) == set()


def test_redirects_to_the_same_protocol_are_followed(server, tmp_path):
    server.files["moved"] = server.files[f"{NAME}.zip"]
    server.faults = [200, f"http://127.0.0.1:{server.server_port}/moved"]
    assert is_whole(fetch(tmp_path))


def test_downloads_without_end_are_refused(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_base, "_MAX_DOWNLOAD", 1000)
    with pytest.raises(OSError, match=r"is longer than 1000 bytes"):
        fetch(tmp_path)
    assert files_in(tmp_path) == set()


@pytest.mark.parametrize("limit", ["ratio", "size"])
def test_members_that_would_fill_the_disk_are_refused(
    server, tmp_path, limit, monkeypatch
):
    if limit == "size":
        monkeypatch.setattr(_base, "_MAX_MEMBER", 5000)
    buffer = io.BytesIO(server.files[f"{NAME}.zip"])
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(3 << 20 if limit == "ratio" else 100))
    (tmp_path / f"{NAME}.zip").write_bytes(buffer.getvalue())
    with pytest.raises(OSError, match=r"has a member .* more than any file"):
        fetch(tmp_path)


def test_what_killed_downloads_left_is_removed(server, tmp_path):
    names = [f"{NAME}.zip.{c * 32}.{end}" for c in "ab" for end in ("part", "tmp")]
    for name in names:
        (tmp_path / name).write_bytes(b"half")
        if "a" * 32 in name:
            os.utime(tmp_path / name, (0, 0))
    fetch(tmp_path)
    assert files_in(tmp_path) == CACHED | {n for n in names if "b" * 32 in n}


def interrupted_copy(source, target, length):
    target.write(source.read(1000))
    raise KeyboardInterrupt


def test_interrupt_leaves_only_a_part_to_resume(server, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(_base.shutil, "copyfileobj", interrupted_copy)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path)
    assert files_in(tmp_path) == {f"{NAME}.zip.part"}
    assert is_whole(fetch(tmp_path))
    assert server.requests[-1] == (f"{NAME}.zip", "bytes=1000-")


def test_interrupt_while_the_cache_is_written_leaves_no_half_file(
    server, tmp_path, monkeypatch
):
    def interrupt(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(tmp_path)
    assert files_in(tmp_path) == {f"{NAME}/texts.csv.gz"}
    assert is_whole(fetch(tmp_path))


def test_unreachable_server_says_what_to_do(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_movielens, "_BASE_URL", "http://127.0.0.1:1/")
    with pytest.raises(OSError, match="Could not download") as info:
        fetch(tmp_path, n_retries=1)
    message = str(info.value)
    assert f"http://127.0.0.1:1/{NAME}.zip" in message
    assert "refused" in message
    assert "attempts: 2" in message
    assert f"save it as {str(tmp_path / (NAME + '.zip'))!r}" in message


def test_concurrent_calls_do_not_interfere(server, tmp_path):
    server.cuts = [1000, 2000]
    with ThreadPoolExecutor(4) as pool:
        datasets = list(pool.map(lambda _: fetch(tmp_path), range(4)))
    assert all(map(is_whole, datasets))
    assert files_in(tmp_path) == CACHED


# -- cache ---------------------------------------------------------------------------


def test_without_download_a_missing_set_is_an_error(server, tmp_path):
    with pytest.raises(OSError, match=r"not cached in .* download_if_missing=False"):
        fetch(tmp_path, download_if_missing=False)
    assert server.requests == []


def test_archive_put_there_by_hand_is_used_and_kept(server, tmp_path):
    (tmp_path / f"{NAME}.zip").write_bytes(server.files[f"{NAME}.zip"])
    assert is_whole(fetch(tmp_path, download_if_missing=False))
    assert server.requests == []
    assert files_in(tmp_path) == CACHED | {f"{NAME}.zip"}


def test_damaged_archive_put_there_by_hand_is_refused_and_kept(tmp_path):
    (tmp_path / "ml-1m.zip").write_bytes(b"not a zip file")
    with pytest.raises(OSError, match=r"ml-1m\.zip is damaged.*Delete this file"):
        fetch(tmp_path, "1m")
    assert files_in(tmp_path) == {"ml-1m.zip"}


def test_a_filled_cache_is_never_written(server, tmp_path, monkeypatch):
    fetch(tmp_path)

    def refuse(*args, **kwargs):
        raise PermissionError("read-only")

    for owner, name in [(os, "replace"), (Path, "touch"), (Path, "unlink")]:
        monkeypatch.setattr(owner, name, refuse)
    assert is_whole(fetch(tmp_path))


def test_cache_that_cannot_be_written_is_reported_before_the_download(
    server, tmp_path, monkeypatch
):
    def refuse(*args, **kwargs):
        raise PermissionError("Permission denied")

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OSError, match=r"not writable .*Pass another folder as data_h"):
        fetch(tmp_path)
    assert server.requests == []


@pytest.mark.parametrize("filename", ["ratings.npz", "texts.csv.gz"])
def test_damaged_cache_is_reported(server, tmp_path, filename):
    fetch(tmp_path)
    (tmp_path / NAME / filename).write_bytes(b"damaged")
    with pytest.raises(OSError, match=r"are damaged .*Delete this folder and call"):
        fetch(tmp_path)


def test_get_data_home_creates_the_folder(tmp_path):
    home = get_data_home(tmp_path / "a" / "b")
    assert home == str(tmp_path / "a" / "b")
    assert os.path.isdir(home)


def test_get_data_home_reads_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("SKREC_DATA", str(tmp_path / "data"))
    assert get_data_home() == str(tmp_path / "data")
    assert get_data_home(tmp_path) == str(tmp_path)


@pytest.mark.parametrize("value", ["", None])
def test_get_data_home_defaults_to_the_users_home(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("SKREC_DATA", value or "")
    if value is None:
        monkeypatch.delenv("SKREC_DATA")
    assert get_data_home() == os.path.join(tmp_path, "skrec_data")


def test_get_data_home_reports_a_folder_that_cannot_be_created(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot be created.*SKREC_DATA"):
        get_data_home(tmp_path / "file" / "data")


def test_clear_data_home_deletes_only_what_fetchers_keep(server, tmp_path):
    fetch(tmp_path)
    for name in ["ml-1m.zip", "ml-1m.zip.part", "notes.txt", "ml-1m-mine.csv"]:
        (tmp_path / name).write_text("")
    clear_data_home(tmp_path)
    assert files_in(tmp_path) == {"notes.txt", "ml-1m-mine.csv"}
