"""The exception that all loaders raise for files that are not as they should be."""

import os


class DataFileError(OSError, ValueError):
    r"""A file of a data set is damaged or not in its official format.

    All loaders and fetchers raise it, and no other exception, if the content of a file
    cannot be kept as it is: values are never truncated, wrapped or left out. A file
    that is missing or cannot be opened is another OSError.

    Parameters
    ----------
    message : str
        What is wrong, with the file and the line, and what to do about it.

    path : str or path-like
        Path of the file. The URL of an archive that was downloaded and discarded.

    line : int, default=None
        Number of the first malformed line of the file or, of an archive, of its member
        that the message names; from 1. None if there is none, as in a binary file or
        a compressed file that is truncated.

    Attributes
    ----------
    path : str
        Path or URL of the file.

    line : int or None
        Number of the line.

    See Also
    --------
    load_filmtrust : Load the FilmTrust ratings, one of the functions that raise it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from skrec.datasets import DataFileError, load_filmtrust
    >>> with tempfile.TemporaryDirectory() as home:
    ...     path = Path(home, "filmtrust", "ratings.txt")
    ...     path.parent.mkdir()
    ...     _ = path.write_text("1 1 3.5\n1 2 9\n")
    ...     try:
    ...         load_filmtrust(data_home=home)
    ...     except DataFileError as error:
    ...         print(Path(error.path).name, error.line)
    ratings.txt 2
    """

    def __init__(
        self, message: str, path: str | os.PathLike[str], line: int | None = None
    ) -> None:
        super().__init__(message)
        self.path = os.fspath(path)
        self.line = line

    def __reduce__(self) -> tuple[type, tuple[str, str, int | None]]:
        # That of OSError would call the class with the message only.
        return type(self), (str(self), self.path, self.line)


class LineError(ValueError):
    """What is wrong with a line; the loader adds the path.

    Attributes
    ----------
    line : int
        Number of the line, from 1.
    """

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def line_of(error: BaseException) -> int | None:
    """Return the line of an error; None if it has none."""
    return getattr(error, "line", None)
