"""Model files that run no code when they are loaded."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import time
import zipfile
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import sklearn
import torch

from ._version import __version__

__all__ = ["load", "save"]

# First line of a file: that of a model, and that of a checkpoint
_MODEL, _CHECKPOINT = b"skrec model file\n", b"skrec checkpoint\n"
_REMEDIES = {
    _MODEL: "Restore the file from a copy, or save the model again",
    _CHECKPOINT: "Remove it to start the fit from the beginning",
}
_FORMAT = 1
_ABANDONED = 3600.0  # seconds after which a temporary file belongs to a killed process
_N_DIGEST = hashlib.sha256().digest_size
_N_LENGTH = 4

# Types that may be in a file besides those that skops trusts, which are the estimators
# of scikit-learn and arrays of NumPy and SciPy. skops constructs a type from its name
# and calls nothing else, so that each type here must be harmless with any attributes.
_TRUSTED = [
    "scipy._lib.array_api_compat.numpy._aliases.asarray",  # a part of BSpline
    "scipy.interpolate._bsplines.BSpline",
    "scipy.sparse._csr.csr_array",
    "sklearn.metrics._scorer._PassthroughScorer",  # of a search without `scoring`
    "sklearn.model_selection._split.KFold",
    "skrec._core.batches.InputTransform",
    "skrec._data.encoders.Categories",
    "skrec._data.encoders.Labels",
    "skrec._data.encoders.Numbers",
    "skrec._data.encoders.Spline",
    "skrec._data.encoders.Words",
    "skrec._data.ratings.Scale",
    "skrec._data.word_vectors.WordVectors",
    "skrec._factorization.baseline.BaselineRegressor",
    "skrec._factorization.bayesian.BayesianMFRegressor",
    "skrec._factorization.bayesian_trainer.Sample",
    "skrec._factorization.llorma.LLORMARegressor",
    "skrec._factorization.mf.BiasedMFRegressor",
    "skrec._factorization.mf.PMFRegressor",
    "skrec._factorization.svdpp.SVDppRegressor",
    "skrec._networks.autorec.AutoRecRegressor",
    "skrec._networks.rbm.RBMRegressor",
    "skrec._prediction.PredictorCache",
    "skrec._splitters.ItemKFold",
    "skrec._splitters.LeaveLastOut",
    "skrec._splitters.RatingKFold",
    "skrec._splitters.TimeSplit",
    "skrec._splitters.UserKFold",
    "skrec._texts.cdl.CDLRegressor",
    "skrec._texts.convmf.ConvMFRegressor",
    "skrec._texts.ctr.CTRRegressor",
    "skrec._texts.linear_path.SequenceCounts",
    "skrec.features.FeatureEncoder",
    "skrec._data.texts.ItemTexts",
    "skrec.text.SequenceVectorizer",
    "torch.device",
]


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Save a model to a file that runs no code when it is loaded.

    The file appears under its name only when it is complete: after a crash, `path` is
    the previous file or the new one.

    Parameters
    ----------
    model : estimator
        Recommender, or a scikit-learn estimator or pipeline that contains one. Its
        callbacks are not saved.

    path : str or path-like
        File to write; an existing file is replaced. A symbolic link is replaced too,
        not followed.

    Raises
    ------
    TypeError
        If `model` is no estimator.
    ValueError
        If the model contains types that `load` would refuse.
    OSError
        If the file cannot be written. An existing file is then unchanged.

    See Also
    --------
    load : Load the model.

    Examples
    --------
    >>> import os, tempfile, skrec
    >>> model = skrec.BaselineRegressor().fit([["a", "x"], ["b", "y"]], [1.0, 5.0])
    >>> path = os.path.join(tempfile.mkdtemp(), "model.skrec")
    >>> skrec.save(model, path)
    >>> skrec.load(path).predict([["a", "x"]]) == model.predict([["a", "x"]])
    array([ True])
    """
    import skops.io

    if isinstance(model, type) or not hasattr(model, "get_params"):
        raise TypeError(
            f"model is {model!r}, but only estimators can be saved: pass a fitted "
            "recommender, or a pipeline or search that contains one."
        )
    path = Path(path)
    check_writable(path)
    if hasattr(model, "_skl_callbacks"):
        model = copy.copy(model).set_callbacks()
    payload = skops.io.dumps(model)
    found = skops.io.get_untrusted_types(data=payload)
    if unknown := sorted(set(found) - set(_TRUSTED)):
        raise ValueError(
            f"The model contains types that skrec.load does not trust: "
            f"{', '.join(unknown)}. Replace them by types of scikit-learn, or use "
            "pickle, which runs code of the file when it is loaded."
        )
    _write(path, _seal(payload, _MODEL))


def load(path: str | os.PathLike[str]) -> Any:
    """Load a model that `save` wrote.

    Parameters
    ----------
    path : str or path-like
        File to read.

    Returns
    -------
    model : estimator
        Model with the same predictions. A model that was fitted on a GPU loads on any
        machine.

    Raises
    ------
    ValueError
        If the file is no model file, is damaged or truncated, comes from a newer
        version of skrec, or contains types other than those of skrec, scikit-learn,
        NumPy and SciPy that are known to be harmless.

    Warns
    -----
    UserWarning
        If another version of skrec or scikit-learn saved the model.

    Notes
    -----
    The checksum detects damage. It is no signature: it does not tell who wrote the
    file.

    See Also
    --------
    save : Save a model.
    """
    return _read(Path(path), _MODEL)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint in the same format."""
    import skops.io

    _write(path, _seal(skops.io.dumps(state), _CHECKPOINT))


def read_state(path: Path) -> Any:
    """Read a checkpoint."""
    return _read(path, _CHECKPOINT)


def check_writable(path: Path) -> None:
    """Raise an OSError if a file cannot be written, before the work for it is done."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"{path} cannot be written, because {str(path.parent)!r} is no folder: "
            "create it, or choose another path."
        )
    if path.exists() and not path.is_file():
        raise OSError(f"{path} exists and is no file: choose another path.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(
            f"{path} cannot be written, because the folder {str(path.parent)!r} is not "
            "writable: choose another path."
        )


def remove(path: Path) -> None:
    """Remove a checkpoint, and what killed processes have left of it."""
    path.unlink(missing_ok=True)
    for temporary in _temporaries(path):
        temporary.unlink(missing_ok=True)


def _read(path: Path, magic: bytes) -> Any:
    """Read what `_seal` made of a file's content."""
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    payload = _check(path.read_bytes(), path, magic)[1]
    try:
        _check_members(payload)
        return skops.io.loads(payload, trusted=_TRUSTED)
    except UntrustedTypesFoundException as error:
        raise ValueError(
            f"{path} contains types that are not trusted: {error}"
        ) from error
    except (MemoryError, Warning):
        raise
    except Exception as error:
        # The checksum is right, so that someone made the file otherwise.
        raise ValueError(
            f"{path} was not written by skrec.save: {type(error).__name__}: {error}"
        ) from error


def _check_members(payload: bytes) -> None:
    """Refuse members that would take more memory than the file is long."""
    with zipfile.ZipFile(BytesIO(payload)) as members:
        for member in members.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"its member {member.filename!r} is compressed")
        if sum(member.file_size for member in members.infolist()) > len(payload):
            raise ValueError("its members overlap")


def _seal(payload: bytes, magic: bytes) -> bytes:
    """Add the first line, the checksum and the versions."""
    versions = {
        "format": _FORMAT,
        "skrec": __version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
    }
    header = json.dumps(versions).encode()
    body = len(header).to_bytes(_N_LENGTH, "big") + header + payload
    return magic + hashlib.sha256(body).digest() + body


def _check(content: bytes, path: Any, magic: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the versions and what was saved, if the content of a file is undamaged."""
    if not content.startswith(magic):
        kind = magic.decode().strip().removeprefix("skrec ")
        raise ValueError(f"{path} is not a {kind} of skrec, or is damaged.")
    start = len(magic) + _N_DIGEST
    digest, body = content[len(magic) : start], content[start:]
    if hashlib.sha256(body).digest() != digest:
        raise ValueError(
            f"{path} is damaged or truncated: its checksum does not match. "
            f"{_REMEDIES[magic]}."
        )
    end = _N_LENGTH + int.from_bytes(body[:_N_LENGTH], "big")
    try:
        versions = json.loads(body[_N_LENGTH:end])
        is_newer = versions["format"] > _FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path} was not written by skrec.save: it has no versions."
        ) from error
    if is_newer:
        raise ValueError(
            f"{path} was saved by skrec {versions.get('skrec')}, whose format "
            f"{versions['format']} is newer than format {_FORMAT} of the installed "
            f"skrec {__version__}: update skrec."
        )
    return versions, body[end:]


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once: it has the old content or the new, never a part."""
    for left in _temporaries(path):
        # A recent one may be that of another process, which writes the same file now.
        with suppress(FileNotFoundError):
            if time.time() - left.lstat().st_mtime > _ABANDONED:
                left.unlink()
    temporary = path.with_name(f"{_prefix(path)}{uuid4().hex}.part")
    try:
        with temporary.open("xb") as file:
            if path.is_file():
                shutil.copymode(path, temporary)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # other systems cannot open folders
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _prefix(path: Path) -> str:
    """Begin of the names of temporary files, short enough for any file's name."""
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogateescape"))
    return f".skrec-{digest.hexdigest()[:16]}-"


def _temporaries(path: Path) -> list[Path]:
    return list(path.parent.glob(f"{_prefix(path)}*.part"))
