"""`read`: FER2013 in whichever form the user has it. The one public entry to everything that reads data from disk.

Finds out by content what a path is, and asks the cache first. Knows nothing of columns, of pictures or of torch.
"""

import dataclasses
import gzip
import io
import logging
import lzma
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import IO, cast

from fer.data import cache
from fer.data.container import Container, decompressed, open_container
from fer.data.csv_file import read_csv
from fer.data.faces import UNSPLIT, Faces
from fer.data.folder import has_class_folders, read_folder
from fer.data.official import find_official
from fer.errors import UserError

_log = logging.getLogger(__name__)

# What the standard library raises on damaged archives and compressed files.
_DAMAGE = (
    zipfile.BadZipFile,
    NotImplementedError,
    tarfile.TarError,
    gzip.BadGzipFile,
    EOFError,
    zlib.error,
    lzma.LZMAError,
)

# Both hold all three splits; Kaggle's challenge download has the second beside train.csv and test.csv.
_OFFICIAL_CSVS = ("fer2013.csv", "icml_face_data.csv")


def read(path: str | Path, use_cache: bool = True, memory: float = math.inf) -> Faces:
    """All faces of a data set.

    Args:
        path: FER2013's CSV (plain, .gz, .xz or .zip); a directory of class folders, or one that holds the CSV; a .zip,
            .tar, .tar.gz or .tar.xz of either, which is read without unpacking it to disk.
        use_cache: return what an earlier call has read when the source is still the same to the byte (see
            `fer.data.cache`), and keep what this call reads.
        memory: bytes; images that take more are left on the disk, in the cache, and mapped into memory. The call that
            reads them for the first time holds them all.

    Raises:
        UserError: `path` does not exist or cannot be read, holds no FER2013, or holds a fault; names it.
    """
    source = Path(path).expanduser()
    with _damage_in_words(source):
        if not source.exists():
            raise UserError(
                f"{source} does not exist; correct data.path (a FER2013 CSV, an archive or a folder), "
                "or try data=synthetic"
            )
        tree = open_container(source) if source.is_dir() else None
        csv = _find_csv(tree, source) if tree else None
        source = source / csv if csv else source

        key = cache.source_key(source) if use_cache else ""
        found = cache.load(source, key, memory) if use_cache else None
        if found is None:
            _log.info("reading %s", source)
            found = _parse(source)
            if use_cache and cache.source_key(source) == key:
                cache.save(source, key, *found)
                if found[0].images.nbytes > memory:
                    found = cache.load(source, key, memory) or found
    faces, notes = found
    for note in notes:
        _log.warning(note)
    return faces


def _parse(source: Path) -> tuple[Faces, list[str]]:
    """The faces, and what the user should be told."""
    container = open_container(source)
    if container is None:
        with source.open("rb") as file:
            return _parse_csv(file, str(source)), []
    with container:
        csv = _find_csv(container, source)
        if csv is None:
            faces, notes = read_folder(container, str(source))
            return dataclasses.replace(faces, official=find_official(faces)), notes
        with container.open(csv) as file:
            return _parse_csv(file, f"{source}: {csv}"), []


def _parse_csv(file: IO[bytes], name: str) -> Faces:
    # In large pieces: the streams that decompress are slow line by line.
    with io.BufferedReader(cast(io.RawIOBase, decompressed(file)), 1 << 20) as stream:
        faces = read_csv(stream, name)
    if (faces.splits == UNSPLIT).all():
        return dataclasses.replace(faces, official=find_official(faces))
    return faces


def _find_csv(container: Container, source: Path) -> str | None:
    """The CSV to read; None when the container holds none, or class folders instead.

    Raises:
        UserError: several CSV files, none of them known.
    """
    csvs = [name for name in container.names if name.lower().removesuffix(".gz").removesuffix(".xz").endswith(".csv")]
    for official in _OFFICIAL_CSVS:
        named = sorted(name for name in csvs if name.rpartition("/")[2].lower().startswith(official))
        if named:
            return min(named, key=len)
    if not csvs or has_class_folders(container.names):
        return None
    if len(csvs) > 1:
        raise UserError(
            f"{source} holds several CSV files ({', '.join(sorted(csvs))}); "
            "name one of them in data.path (unpack an archive for that)"
        )
    return csvs[0]


@contextmanager
def _damage_in_words(source: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise UserError(
            f"{source} is truncated or damaged ({shorten(str(error), 120)}); download or copy it again"
        ) from error
    except OSError as error:
        raise UserError(f"{source} cannot be read ({error}); mend that, or give another data.path") from error
