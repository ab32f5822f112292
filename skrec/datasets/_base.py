"""The cache folder of the data sets, and atomic downloads into it."""

import hashlib
import os
import re
import shutil
import ssl
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener
from uuid import uuid4

from .._progress import ProgressLines
from .._sklearn_compat import validate_params
from ._errors import DataFileError

_ENVIRONMENT_VARIABLE = "SKREC_DATA"
_DEFAULT_HOME = os.path.join("~", "skrec_data")
# The cache folders that the fetchers create; clear_data_home touches no other.
CACHE_NAMES = ("ml-100k", "ml-1m", "ml-10m", "ml-latest-small", "ml-25m", "ml-32m")

_TIMEOUT = 60.0  # seconds without data after which a connection is lost
_BLOCK = 1 << 20
# The largest archive has 0.3 GB, its largest file 0.9 GB, and text shrinks to a tenth.
_MAX_DOWNLOAD = 1 << 30
_MAX_MEMBER = 2 << 30
_MAX_RATIO = 100
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to a killed process
_TEMPORARY = re.compile(r"\.[0-9a-f]{32}\.(tmp|part)$")
_TRANSIENT = (URLError, HTTPException, ConnectionError, TimeoutError, ssl.SSLError)
_WORTH_RETRYING = (408, 429)  # the client errors that may be transient
_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])


def validated_parameters(
    parameter_constraints: dict[str, list[Any]],
) -> Callable[[_Function], _Function]:
    """Let scikit-learn validate the parameters of a function, keeping its type."""
    decorator: Callable[[_Function], _Function] = validate_params(
        parameter_constraints, prefer_skip_nested_validation=True
    )
    return decorator


@validated_parameters({"data_home": [str, os.PathLike, None]})
def get_data_home(data_home: str | os.PathLike[str] | None = None) -> str:
    """Return the path of the folder where data sets are cached.

    The folder is created if it does not exist.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder. If None, the environment variable ``SKREC_DATA`` is used
        or, if it is not set, ``~/skrec_data``. A leading ``~`` is expanded to the home
        directory.

    Returns
    -------
    data_home : str
        Path of the folder.

    Raises
    ------
    OSError
        If the folder does not exist and cannot be created.

    See Also
    --------
    clear_data_home : Delete the cached data sets.

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
            f"The data folder {path!r} cannot be created ({error}). Pass a writable "
            f"folder as data_home, or set {_ENVIRONMENT_VARIABLE} to one."
        ) from error
    return path


@validated_parameters({"data_home": [str, os.PathLike, None]})
def clear_data_home(data_home: str | os.PathLike[str] | None = None) -> None:
    """Delete the data sets that the fetchers have cached.

    Only the folders of known data sets (``ml-100k``, ``ml-1m``, ...), their archives
    and their partial downloads are deleted. All other files and the folder itself are
    kept.

    Parameters
    ----------
    data_home : str or path-like, default=None
        Path of the folder, see :func:`get_data_home`.

    See Also
    --------
    get_data_home : Return the path of the folder where data sets are cached.

    Examples
    --------
    >>> import tempfile
    >>> from skrec.datasets import clear_data_home
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     clear_data_home(folder)
    """
    home = Path(get_data_home(data_home))
    for name in CACHE_NAMES:
        if (home / name).is_symlink():
            (home / name).unlink()
        elif (home / name).exists():
            shutil.rmtree(home / name)
        for path in home.glob(f"{name}.zip*"):
            path.unlink()


def make_writable(folder: Path) -> None:
    """Create `folder`, and check that it is writable before any work is done.

    Temporary files of processes that were killed are removed from it.
    """
    probe = _private_name(folder / "probe", "tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"The cache folder {str(folder)!r} is not writable ({error}). Pass another "
            f"folder as data_home, or set {_ENVIRONMENT_VARIABLE} to one."
        ) from error
    for path in folder.iterdir():
        if _TEMPORARY.search(path.name):
            with suppress(OSError):  # gone meanwhile, or of another user
                if time.time() - path.lstat().st_mtime > _ABANDONED:
                    path.unlink()


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears as `path` only when it is completely written."""
    temporary = _private_name(path, "tmp")
    try:
        # Not tempfile.mkstemp: other users of a shared cache could not read its files.
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def downloaded(
    url: str, target: Path, *, n_retries: int, delay: float, verbose: bool = False
) -> Iterator[Path]:
    """Download `url` to a private name next to `target`, and delete it on exit.

    An interrupted download is kept as `target` + ``.part`` and resumed next time. A
    process takes over this file by renaming it, so that two processes never write to
    the same file.
    """
    part = target.with_name(target.name + ".part")
    own = _private_name(target, "part")
    try:
        try:
            os.replace(part, own)
            # A link could lead to a file of the user outside of a shared cache.
            if own.is_symlink() or own.stat().st_nlink > 1:
                own.unlink()
        except FileNotFoundError:
            pass
        own.touch()
        _retry(lambda: _transfer(url, own, verbose), url, target, n_retries, delay)
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
    """Return the MD5 checksum that the server has for `url`; None if it has none."""
    text = _retry(
        lambda: _read_or_none(url + ".md5"), url + ".md5", target, n_retries, delay
    )
    if text is None:
        return None
    # The server uses two notations: "<md5>  <name>" and "MD5 (<name>) = <md5>".
    found = re.search(r"\b[0-9a-f]{32}\b", text.lower())
    if found is None:
        raise OSError(
            f"{url}.md5 has no MD5 checksum but {text[:60]!r}: a proxy or login page "
            "may have answered instead of the server. Try another network."
        )
    return found.group()


def verify_archive(path: Path, md5: str | None, *, name: str, remedy: str) -> None:
    """Verify a zip file by its MD5 checksum or, if it is None, by its own CRCs.

    Members that are too large, or compressed too well to be texts, are refused.
    """
    if md5 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.md5(usedforsecurity=False)
            ).hexdigest()
        if found != md5:
            raise DataFileError(
                f"{name} is damaged: its MD5 checksum is {found}, but {md5} is "
                f"published. {remedy}",
                name,
            )
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                packed, size = member.compress_size, member.file_size
                is_bomb = size > _BLOCK and size > _MAX_RATIO * packed
                if size > _MAX_MEMBER or is_bomb:
                    raise DataFileError(
                        f"{name} has a member {member.filename} of {size} bytes, which "
                        f"takes {packed} bytes in the archive: that is more than any "
                        f"file of the official format. {remedy}",
                        name,
                    )
            damaged = archive.testzip() if md5 is None else None
    except DataFileError:
        raise
    # zipfile raises half a dozen types for damaged bytes.
    except Exception as error:
        raise DataFileError(
            f"{name} is not a complete zip file ({error}). {remedy}", name
        ) from error
    if damaged is not None:
        raise DataFileError(
            f"{name} is damaged: its member {damaged} is corrupt. {remedy}", name
        )


def _private_name(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}.{uuid4().hex}.{suffix}")


def _retry(
    attempt: Callable[[], _T], url: str, target: Path, n_retries: int, delay: float
) -> _T:
    """Call `attempt` until it succeeds, fails permanently, or runs out of retries."""
    for n_failed in range(1, n_retries + 2):
        try:
            return attempt()
        except _TRANSIENT as error:
            if n_failed > n_retries or _is_final(error):
                raise OSError(
                    f"Could not download {url} ({_reason(error)}; attempts: "
                    f"{n_failed}). Check the network connection, or download "
                    f"{target.name} by other means and save it as {str(target)!r}."
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


def _transfer(url: str, path: Path, verbose: bool = False) -> None:
    """Append the missing rest of `url` to `path`, or write it from the start."""
    offset = path.stat().st_size
    with _open(url, offset) as response:
        resumed = response.status == 206
        start = f"bytes {offset}-"
        if resumed and not response.headers.get("Content-Range", "").startswith(start):
            os.truncate(path, 0)
            raise ConnectionError("the server sent another range than requested")
        with path.open("ab" if resumed else "wb") as file:
            begin = file.tell()
            length = response.headers.get("Content-Length")
            total = None if length is None else begin + int(length)
            lines = ProgressLines(url, "bytes", total, verbose)
            shutil.copyfileobj(_Limited(response, path, begin, lines), file, _BLOCK)
            received = file.tell() - begin
        expected = received if length is None else int(length)
    # HTTPResponse.read(n) raises no error when the connection is closed too early.
    if received < expected:
        raise ConnectionError(
            f"the connection was closed after {received} of {expected} bytes"
        )


class _Limited:
    """Response of a server, up to the size of the largest data set."""

    def __init__(self, response: Any, path: Path, n_bytes: int, lines: ProgressLines):
        self.response, self.path, self.n_bytes = response, path, n_bytes
        self.lines = lines

    def read(self, length: int = -1, /) -> bytes:
        block: bytes = self.response.read(length)
        self.n_bytes += len(block)
        if block:
            self.lines.show(self.n_bytes)
        if self.n_bytes > _MAX_DOWNLOAD:
            os.truncate(self.path, 0)  # nothing to resume
            raise OSError(
                f"{self.response.url} is longer than {_MAX_DOWNLOAD} bytes, which no "
                "data set is: another server may have answered. Try another network."
            )
        return block


class _SafeRedirects(HTTPRedirectHandler):
    """Redirects to web servers only, and never from a secure to an insecure one."""

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != "https" and not new == old == "http":
            raise OSError(
                f"{req.full_url} is redirected to {newurl}, which is not secure: "
                "another server may have answered. Try another network."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(url: str, offset: int) -> Any:
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    try:
        request = Request(url, headers=headers)
        return build_opener(_SafeRedirects).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        # The part is at least as long as the file, so the requested range is empty.
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
