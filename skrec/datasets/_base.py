"""Where data sets are cached, and how files get there whole or not at all."""

import hashlib
import os
import re
import shutil
import ssl
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

from sklearn.utils._param_validation import validate_params

_ENVIRONMENT_VARIABLE = "SKREC_DATA"
_DEFAULT_HOME = os.path.join("~", "skrec_data")
# The cache folders that the fetchers create; clear_data_home touches no other.
CACHE_NAMES = ("ml-100k", "ml-1m", "ml-10m", "ml-latest-small", "ml-25m", "ml-32m")

_TIMEOUT = 60.0  # seconds without a byte before a connection counts as lost
_BLOCK = 1 << 20
_TRANSIENT = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_WORTH_RETRYING = (408, 429)  # among the statuses that blame the client
_T = TypeVar("_T")


@validate_params(
    {"data_home": [str, os.PathLike, None]}, prefer_skip_nested_validation=True
)
def get_data_home(data_home=None) -> str:
    """Return the path of the folder where data sets are cached.

    The folder is created if it does not exist.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder. If None, the environment variable ``SKREC_DATA`` or, where that
        is not set, ``~/skrec_data``. A leading ``~`` stands for the user's home.

    Returns
    -------
    data_home : str
        The path of the folder.

    Raises
    ------
    OSError
        If the folder does not exist and cannot be created.

    See Also
    --------
    clear_data_home : Delete what the fetchers have cached.

    Examples
    --------
    >>> import os, tempfile
    >>> from skrec.datasets import get_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     os.path.isdir(get_data_home(os.path.join(folder, "new")))
    True
    """
    if data_home is None:
        data_home = os.environ.get(_ENVIRONMENT_VARIABLE) or _DEFAULT_HOME
    path = os.path.expanduser(os.fspath(data_home))
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The data folder {path!r} cannot be created ({error}). Pass a folder that "
            f"you may write to as data_home, or name it in {_ENVIRONMENT_VARIABLE}."
        ) from error
    return path


@validate_params(
    {"data_home": [str, os.PathLike, None]}, prefer_skip_nested_validation=True
)
def clear_data_home(data_home=None) -> None:
    """Delete the data sets that the fetchers keep in the data folder.

    Only the folders of known data sets (``ml-100k``, ``ml-1m``, ...), their archives
    and their partial downloads are deleted; any other file stays, and so does the
    folder itself.

    Parameters
    ----------
    data_home : str or path-like, default=None
        The folder, found as :func:`get_data_home` finds it.

    See Also
    --------
    get_data_home : The folder where data sets are cached.

    Examples
    --------
    >>> import tempfile
    >>> from skrec.datasets import clear_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clear_data_home(folder)
    """
    home = Path(get_data_home(data_home))
    for name in CACHE_NAMES:
        if (home / name).exists():
            shutil.rmtree(home / name)
        for path in home.glob(f"{name}.zip*"):
            path.unlink()


def make_writable(folder: Path) -> None:
    """Create `folder`, and make sure before any work that files can be put there."""
    probe = _private_name(folder / "probe", "tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"The cache folder {str(folder)!r} is not writable ({error}). Pass another "
            f"folder as data_home, or name it in {_ENVIRONMENT_VARIABLE}."
        ) from error


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears as `path` only once it has been written in full."""
    temporary = _private_name(path, "tmp")
    try:
        # Not tempfile.mkstemp, whose files other users of a shared cache cannot read.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def downloaded(
    url: str, target: Path, *, n_retries: int, delay: float
) -> Iterator[Path]:
    """Download `url` beside `target` under a private name, and delete it on exit.

    What an interrupted download leaves is kept as `target` + ``.part`` and goes on
    from there next time. A process takes that file over by renaming it, so that two
    processes never write to the same file.
    """
    part = target.with_name(target.name + ".part")
    own = _private_name(target, "part")
    try:
        try:
            os.replace(part, own)
        except FileNotFoundError:
            own.touch()
        _retry(lambda: _transfer(url, own), url, target, n_retries, delay)
    except BaseException:
        if own.exists() and own.stat().st_size:
            os.replace(own, part)
        own.unlink(missing_ok=True)
        raise
    try:
        yield own
    finally:
        own.unlink(missing_ok=True)


def published_md5(
    url: str, target: Path, *, n_retries: int, delay: float
) -> str | None:
    """MD5 in the file that the server keeps beside `url`; None if it keeps none."""
    text = _retry(
        lambda: _read_or_none(url + ".md5"), url + ".md5", target, n_retries, delay
    )
    if text is None:
        return None
    # Two notations are in use there: "<md5>  <name>" and "MD5 (<name>) = <md5>".
    found = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if found is None:
        raise OSError(
            f"{url}.md5 holds no MD5 checksum but {text[:60]!r}: something between "
            "here and the server may answer in its place. Try another network."
        )
    return found.group()


def verify_archive(path: Path, md5: str | None, *, name: str, remedy: str) -> None:
    """Compare a zip file with its MD5 or, where none is known, with its own CRCs."""
    if md5 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if found != md5:
            raise OSError(
                f"{name} is damaged: its MD5 checksum is {found}, where {md5} is "
                f"published. {remedy}"
            )
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise OSError(f"{name} is not a whole zip file ({error}). {remedy}") from error
    if damaged is not None:
        raise OSError(f"{name} is damaged: its member {damaged} is corrupt. {remedy}")


def _private_name(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{uuid4().hex}.{suffix}")


def _retry(
    attempt: Callable[[], _T], url: str, target: Path, n_retries: int, delay: float
) -> _T:
    """Call `attempt` until it succeeds, fails for good or has failed too often."""
    for n_failed in range(1, n_retries + 2):
        try:
            return attempt()
        except _TRANSIENT as error:
            if n_failed > n_retries or _is_final(error):
                raise OSError(
                    f"Could not download {url} ({_reason(error)}; attempts: "
                    f"{n_failed}). Check the network connection, or get {target.name} "
                    f"in another way and save it as {str(target)!r}."
                ) from error
        time.sleep(delay)
    raise AssertionError("unreachable: the last failure raises")


def _is_final(error: BaseException) -> bool:
    return (
        isinstance(error, HTTPError)
        and 400 <= error.code < 500
        and error.code not in _WORTH_RETRYING
    )


def _reason(error: BaseException) -> str:
    if isinstance(error, URLError) and not isinstance(error, HTTPError):
        return str(error.reason)
    return str(error) or type(error).__name__


def _transfer(url: str, path: Path) -> None:
    """Append to `path` what it lacks of `url`, or write it anew."""
    offset = path.stat().st_size
    with _open(url, offset) as response:
        resumed = response.status == 206
        start = f"bytes {offset}-"
        if resumed and not response.headers.get("Content-Range", "").startswith(start):
            os.truncate(path, 0)
            raise ConnectionError("the server sent another range than asked for")
        with path.open("ab" if resumed else "wb") as file:
            begin = file.tell()
            shutil.copyfileobj(response, file, _BLOCK)
            received = file.tell() - begin
        expected = int(response.headers.get("Content-Length", received))
    # HTTPResponse.read(n) ends quietly when the connection is closed too early.
    if received < expected:
        raise ConnectionError(
            f"the connection was closed after {received} of {expected} bytes"
        )


def _open(url: str, offset: int) -> Any:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        return urlopen(Request(url, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        # The part is as long as the file or longer: no range of it is missing.
        if error.code == 416 and offset:
            return _open(url, 0)
        raise


def _read_or_none(url: str) -> str | None:
    try:
        with _open(url, 0) as response:
            return response.read(_BLOCK).decode("ascii", errors="replace")
    except HTTPError as error:
        if error.code == 404:
            return None
        raise
