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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import IO, cast

import numpy as np

from fer.data import cache
from fer.data.container import Container, Directory, decompressed, open_container
from fer.data.csv_file import read_csv, read_header
from fer.data.decode import read_places
from fer.data.faces import SIZE, SPLIT_NAMES, TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.data.folder import has_class_folders, is_image, resized
from fer.data.layouts import find, is_label_table
from fer.data.official import find_official, looks_official
from fer.data.parquet import is_parquet, read_parquet
from fer.errors import UserError
from fer.files import at_home
from fer.labels import ALL_EMOTIONS

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

_PICKLES = (".pt", ".pth", ".pkl", ".pickle")

# Both hold all three splits; Kaggle's challenge download has the second beside train.csv and test.csv.
_OFFICIAL_CSVS = ("fer2013.csv", "icml_face_data.csv")


def read(
    path: str | Path,
    use_cache: bool = True,
    memory: float = math.inf,
    size: int = SIZE,
    layout: str | None = None,
    names: Sequence[str] | None = None,
    emotions: Sequence[str] = ALL_EMOTIONS,
) -> Faces:
    """All faces of a data set. Says in the log what the source was taken for, and what was left out.

    Args:
        path: FER2013's CSV (plain, .gz, .xz or .zip); a directory of pictures (see `fer.data.layouts`) or of parquet
            files, or one that holds the CSV; a .zip, .tar, .tar.gz or .tar.xz of any, which is read without unpacking
            it to disk; a parquet file.
        use_cache: return what an earlier call has read when the source is still the same to the byte (see
            `fer.data.cache`), and keep what this call reads.
        memory: bytes; images that take more are left on the disk, in the cache, and mapped into memory. The call that
            reads them for the first time holds them all.
        size: pixels per side at which faces are stored; larger and smaller pictures are scaled.
        layout: as `fer.settings.train.SourceSettings` has it, where the source does not show what it is.
        names: the emotions of numbered classes, one each from the smallest number to the largest.
        emotions: those that names may say: `fer.labels.ALL_EMOTIONS` and others.

    Raises:
        UserError: `path` does not exist or cannot be read, holds no faces with labels, or holds a fault; names it.
    """
    source = at_home(path)
    how = _How(size, layout, None if names is None else tuple(names), tuple(emotions))
    with _damage_in_words(source):
        if not source.exists():
            raise UserError(
                f"{source} does not exist; give a FER2013 CSV, an archive or a folder of pictures or parquet files"
            )
        tree = Directory(source) if source.is_dir() else None
        csv = _find_csv(tree, source, how.emotions) if tree else None
        if tree is not None and csv is not None:
            source, tree = tree.path(csv), None
        if source.exists() and not (source.is_dir() or source.is_file()):
            raise UserError(f"{source} is no file and no folder but a pipe or a device; write it to a file first")
        if source.is_file() and is_parquet(source.name):
            tree = Directory(source.parent, [source.name])

        # Where there is no entry nothing needs to be compared, and the key is made of what is read anyway; not of a CSV
        # or an archive, which may be changed while they are read.
        first = use_cache and tree is not None and not cache.has_entry(source)
        key = cache.source_key(source, how, tree) if use_cache and not first else ""
        found = cache.load(source, key, memory) if key else None
        if found is None:
            _log.info("reading %s", source)
            found = _parse(source, how, tree)
            now = cache.source_key(source, how, tree) if use_cache else ""
            if use_cache and (tree or now == key):
                cache.save(source, now, *found)
                if found[0].images.nbytes > memory:
                    found = cache.load(source, now, memory) or found
    faces, notes = found
    told = "; ".join([_summary(faces), *(note.removeprefix(f"{source}: ") for note in notes)])
    _log.log(logging.WARNING if notes else logging.INFO, f"{source}: {told}")
    return faces


@dataclasses.dataclass(frozen=True)
class _How:
    """Settings that decide what is read; part of the cache's key."""

    size: int
    layout: str | None
    names: tuple[str, ...] | None
    emotions: tuple[str, ...]


def _parse(source: Path, how: _How, tree: Directory | None) -> tuple[Faces, list[str]]:
    """The faces, and what the user should be told; `tree` is a directory, or holds a parquet file and nothing else."""
    if source.is_file() and source.name.lower().endswith(_PICKLES):
        raise _pickle_refused(source.name, source)
    container = tree or open_container(source)
    if container is None:
        with source.open("rb") as file:
            return _parse_csv(file, str(source), how)
    with container:
        csv = _find_csv(container, source, how.emotions)
        if csv is not None:
            with container.open(csv) as file:
                return _parse_csv(file, f"{source}: {csv}", how)
        pickles = [name for name in container.names if name.lower().endswith(_PICKLES)]
        if pickles and not any(map(is_image, container.names)):
            raise _pickle_refused(pickles[0], source)
        faces, notes = _read_pictures(container, source, how)
        if how.size == SIZE:
            return dataclasses.replace(faces, official=find_official(faces)), notes
        if looks_official(faces.images):
            same = _read_pictures(container, source, dataclasses.replace(how, size=SIZE))[0]
            faces = dataclasses.replace(faces, official=find_official(same))
        return faces, notes


def _read_pictures(container: Container, source: Path, how: _How) -> tuple[Faces, list[str]]:
    files = [name for name in container.names if is_parquet(name)]
    if files:
        return read_parquet(container, files, str(source), *dataclasses.astuple(how))
    found = find(container, str(source), how.layout, how.names, how.emotions)
    faces = read_places(container, found.places, str(source), how.size, how.emotions)
    return dataclasses.replace(faces, form=found.form), found.notes


def _pickle_refused(name: str, source: Path) -> UserError:
    return UserError(
        f"{source}: {name} is a pickle, which may run code when it is opened, and is not read; "
        "give the CSV, pictures or parquet that it was made from"
    )


def _parse_csv(file: IO[bytes], name: str, how: _How) -> tuple[Faces, list[str]]:
    # In large pieces: the streams that decompress are slow line by line.
    with io.BufferedReader(cast(io.RawIOBase, decompressed(file)), 1 << 20) as stream:
        faces = dataclasses.replace(read_csv(stream, name, how.emotions), form="CSV of pixels")
    if (faces.splits == UNSPLIT).all():
        faces = dataclasses.replace(faces, official=find_official(faces))
    given = "data.names" if how.names is not None else None if how.layout in (None, "fer2013") else "data.layout"
    notes = [] if given is None else [f"{given} is not used: a CSV of pixels has FER2013's numbers"]
    return resized(faces, how.size), notes


def _summary(faces: Faces) -> str:
    """What the source was taken for, and its rows by split and class."""
    parts = []
    for split in (TRAIN, VAL, TEST, UNSPLIT):
        labels = faces.labels[faces.splits == split]
        if len(labels):
            counts = np.bincount(labels, minlength=len(faces.emotions))
            named = zip(faces.emotions, counts, strict=True)
            classes = ", ".join(f"{name} {count:,}" for name, count in named if count)
            parts.append(f"{SPLIT_NAMES.get(split, 'undivided')} {len(labels):,} ({classes})")
    return f"{faces.form}: {', '.join(parts)}"


def _find_csv(container: Container, source: Path, emotions: Sequence[str]) -> str | None:
    """The CSV to read; None when the container holds none, or pictures instead.

    Raises:
        UserError: several CSV files, none of them known.
    """
    csvs = [name for name in container.names if name.lower().removesuffix(".gz").removesuffix(".xz").endswith(".csv")]
    for official in _OFFICIAL_CSVS:
        named = sorted(name for name in csvs if name.rpartition("/")[2].lower().startswith(official))
        if named:
            return min(named, key=len)
    if not csvs or has_class_folders(container.names, emotions) or any(map(is_parquet, container.names)):
        return None
    if any(map(is_image, container.names)):
        csvs = [name for name in csvs if not is_label_table(name) and _has_pixels(container, name)]
        if not csvs:
            return None
    if len(csvs) > 1:
        raise UserError(
            f"{source} holds several CSV files ({', '.join(sorted(csvs))}); "
            "name one of them in data.path (unpack an archive for that)"
        )
    return csvs[0]


def _has_pixels(container: Container, name: str) -> bool:
    with container.open(name) as file:
        try:
            read_header(decompressed(file), name)
        except UserError:
            return False
    return True


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
