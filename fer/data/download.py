"""Fetches FER2013's CSV from Kaggle, where a copy lies open to everyone without a login, and FER+'s votes from GitHub.

The transfer of the first is kagglehub's, that of the second requests'; the readers say whether what came is whole.
"""

import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partialmethod
from pathlib import Path
from textwrap import shorten

import numpy as np

from fer.data import ferplus
from fer.data.faces import SPLIT_NAMES, TEST, TRAIN, VAL
from fer.data.reader import read
from fer.errors import UserError
from fer.files import at_home
from fer.settings.train import FER2013_FILE, VOTES_FILE

_log = logging.getLogger(__name__)

DATASET = "deadskull7/fer2013"

# Rows of Training, PublicTest and PrivateTest (Goodfellow et al., arXiv 1307.0414).
OFFICIAL_ROWS = {TRAIN: 28709, VAL: 3589, TEST: 3589}

# Seconds to connect, and between two pieces of data.
TIMEOUTS = (5.0, 30.0)


@dataclass(frozen=True)
class _Remote:
    """A file that can be fetched.

    Attributes:
        file: its name.
        what: it is, and how large.
        page: where a browser finds it.
        server: who sends it.
        setting: that names a copy of it.
        otherwise: what to do without it.
        transfer: fetches it into a folder and returns where it lies there.
        fault: what is wrong with a file that came, or None; a reader's UserError says it, too.
    """

    file: str
    what: str
    page: str
    server: str
    setting: str
    otherwise: str
    transfer: Callable[[Path], Path]
    fault: Callable[[Path], str | None]


def download(target: Path) -> Path:
    """FER2013's CSV at `target`, fetched unless something is there already; it takes about 300 MB on the disk.

    Raises:
        UserError: as `_fetch`.
    """
    page = f"https://www.kaggle.com/datasets/{DATASET}"
    what, otherwise = "FER2013 (about 300 MB on the disk)", "train on drawn faces with data=synthetic"
    remote = _Remote(
        *(FER2013_FILE, what, page, "Kaggle", "data.path", otherwise), *(_transfer_fer2013, _fault_of_fer2013)
    )
    return _fetch(at_home(target), remote)


def download_votes(target: Path) -> Path:
    """FER+'s votes (1.6 MB) at `target`, fetched from Microsoft's repository unless something is there already.

    Raises:
        UserError: as `_fetch`.
    """
    what, otherwise = "the FER+ votes (1.6 MB)", "leave data.labels=ferplus out"
    votes = _Remote(
        *(VOTES_FILE, what, ferplus.URL, "the server", "data.ferplus_path", otherwise),
        *(_transfer_votes, _fault_of_votes),
    )
    return _fetch(at_home(target), votes)


def _fetch(target: Path, remote: _Remote) -> Path:
    """Fetches a file to a temporary folder beside `target`, and moves it there when it is whole.

    Raises:
        UserError: `target` cannot be written, the server cannot be reached or refuses, or what came is not the whole
            file. Nothing is left behind.
    """

    def failure(what: str) -> UserError:
        return UserError(
            f"{target} {what}. Three ways out: get {remote.file} in a browser from {remote.page} and save it as "
            f"{target}; name a copy that you have in {remote.setting}; or {remote.otherwise}"
        )

    if target.exists():
        return target
    _log.info("%s does not exist: downloading %s from %s", target, remote.what, remote.page)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as staging:
            try:
                arrived = remote.transfer(Path(staging))
            except Exception as error:  # requests', kagglehub's and the file system's errors alike: the way out is one
                raise failure(f"could not be downloaded ({_reason(error, remote.server)})") from error
            try:
                fault = remote.fault(arrived)
            except UserError as error:
                fault = f"is damaged ({str(error).replace(str(arrived), remote.file)})"
            if fault is not None:
                raise failure(f"was downloaded, but {fault}")
            arrived.replace(target)
    except OSError as error:
        raise failure(f"cannot be written ({error})") from error
    return target


def _transfer_fer2013(staging: Path) -> Path:
    import kagglehub  # here, as its import takes a moment and most runs have their data

    with _timeouts():
        arrived = Path(kagglehub.dataset_download(DATASET, FER2013_FILE, output_dir=str(staging)))
    if staging not in arrived.parents:  # in Kaggle's own notebooks it is mounted read-only instead
        return Path(shutil.copyfile(arrived, staging / FER2013_FILE))
    return arrived


def _fault_of_fer2013(arrived: Path) -> str | None:
    splits = read(arrived, use_cache=False).splits
    counts = {split: int(np.count_nonzero(splits == split)) for split in OFFICIAL_ROWS}
    if counts == OFFICIAL_ROWS and len(splits) == sum(OFFICIAL_ROWS.values()):
        _log.info("%s is whole: %s rows", FER2013_FILE, " + ".join(f"{rows:,}" for rows in OFFICIAL_ROWS.values()))
        return None
    found = ", ".join(f"{counts[split]:,} of {rows:,} {SPLIT_NAMES[split]}" for split, rows in OFFICIAL_ROWS.items())
    return f"is not the whole of FER2013 ({found} rows)"


def _transfer_votes(staging: Path) -> Path:
    import requests

    response = requests.get(ferplus.URL, timeout=TIMEOUTS)
    response.raise_for_status()
    arrived = staging / VOTES_FILE
    arrived.write_bytes(response.content)
    return arrived


def _fault_of_votes(arrived: Path) -> str | None:
    count = len(ferplus.read_votes(arrived))
    return None if count == ferplus.ROWS else f"has {count:,} of {ferplus.ROWS:,} rows"


def _reason(error: BaseException, server: str) -> str:
    """Why a transfer failed, in one short line: the innermost cause speaks plainest."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"{server} answers {response.status_code} {response.reason}"
    while cause := error.__cause__ or error.__context__:
        error = cause
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
