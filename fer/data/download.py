"""Fetches FER2013 from Kaggle, where a copy of the CSV lies open to everyone, without a login.

Knows Kaggle's name for it and how many rows it must have; the transfer is kagglehub's, the reading `fer.data.reader`'s.
"""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from pathlib import Path
from textwrap import shorten

import numpy as np

from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL
from fer.data.reader import read
from fer.errors import UserError

_log = logging.getLogger(__name__)

DATASET = "deadskull7/fer2013"
FILE = "fer2013.csv"
PAGE = f"https://www.kaggle.com/datasets/{DATASET}"

# Rows of Training, PublicTest and PrivateTest (Goodfellow et al., arXiv 1307.0414).
OFFICIAL_ROWS = {TRAIN: 28709, VAL: 3589, TEST: 3589}

# Seconds to connect, and between two pieces of data.
TIMEOUTS = (5.0, 30.0)


def download(target: Path) -> Path:
    """Fetches FER2013's CSV to `target`, creating the folders above it. It takes about 300 MB on the disk.

    The file is fetched to a temporary folder beside `target`, checked to be whole, and only then moved there.

    Args:
        target: the name for the CSV. Where something exists under it, nothing is fetched.

    Returns:
        `target`, which `fer.data.reader.read` takes.

    Raises:
        UserError: `target` does not end in .csv or cannot be written, Kaggle cannot be reached or refuses, or what came
            is not the whole of FER2013. No file is left behind.
    """
    target = Path(target).expanduser()
    if target.exists():
        return target
    if target.suffix.lower() != ".csv":
        raise UserError(
            f"{target} does not exist, and only a CSV can be downloaded: correct data.path, or give it a name that "
            "ends in .csv to have FER2013 downloaded there"
        )
    _log.info("%s does not exist: downloading FER2013 (about 300 MB on the disk) from %s", target, PAGE)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as staging:
            arrived = _fetch(Path(staging), target)
            _check(arrived, target)
            arrived.replace(target)
    except OSError as error:
        raise _failure(target, f"cannot be written ({error})") from error
    _log.info("%s is whole: %s rows", target, " + ".join(f"{rows:,}" for rows in OFFICIAL_ROWS.values()))
    return target


def _fetch(staging: Path, target: Path) -> Path:
    """The file as Kaggle sends it, inside `staging`."""
    import kagglehub  # here, as its import takes a moment and most runs have their data

    try:
        with _timeouts():
            arrived = Path(kagglehub.dataset_download(DATASET, FILE, output_dir=str(staging)))
    except Exception as error:  # requests', kagglehub's and the file system's errors alike: the way out is the same
        raise _failure(target, f"could not be downloaded ({_reason(error)})") from error
    if staging not in arrived.parents:  # in Kaggle's own notebooks it is mounted read-only instead
        return Path(shutil.copyfile(arrived, staging / FILE))
    return arrived


def _check(arrived: Path, target: Path) -> None:
    """Refuses a file that is not the whole of FER2013."""
    try:
        splits = read(arrived, use_cache=False).splits
    except UserError as error:
        fault = str(error).replace(str(arrived), FILE)
        raise _failure(target, f"was downloaded, but is damaged ({fault})") from error
    counts = {split: int(np.count_nonzero(splits == split)) for split in OFFICIAL_ROWS}
    if counts != OFFICIAL_ROWS or len(splits) != sum(OFFICIAL_ROWS.values()):
        found = ", ".join(
            f"{counts[split]:,} of {rows:,} {SPLIT_NAMES[split]}" for split, rows in OFFICIAL_ROWS.items()
        )
        raise _failure(target, f"was downloaded, but is not the whole of FER2013 ({found} rows)")


def _failure(target: Path, what: str) -> UserError:
    return UserError(
        f"{target} {what}. Three ways out: get {FILE} in a browser from {PAGE} and save it as {target}; "
        "name a copy that you have in data.path; or train on drawn faces with data=synthetic"
    )


def _reason(error: BaseException) -> str:
    """Why a transfer failed, in one short line: the innermost cause speaks plainest."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"Kaggle answers {response.status_code} {response.reason}"
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return shorten(str(error), 200) or type(error).__name__


@contextmanager
def _timeouts() -> Iterator[None]:
    """Gives every request `TIMEOUTS` that has none of its own.

    kagglesdk 0.1 calls `Session.send` without one: behind a firewall that drops packets, or a server that has stopped
    to answer, it waits for minutes or for ever.
    """
    from requests import Session

    original = Session.send
    Session.send = partialmethod(original, timeout=TIMEOUTS)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Session.send = original  # type: ignore[method-assign]
