"""Keeps what was read, so that the next start need not parse again; never returns what the source no longer holds.

There is one entry per source path, a plain .npz in the user's cache directory (`FER_CACHE` names another). It is used
only when its key equals the key of the source as it is now. The key is a BLAKE2b digest of

- every byte of the source: the file, or of a directory the paths of all folders and of the files that are read
  (images, labels, parquet), and these files' bytes. Size and time would be cheaper, but they miss an edit within the
  clock's resolution or under a restored time stamp, and call a mere copy or `touch` a change. Hashing FER2013 takes
  0.2 s (CSV, 271 MB) to 0.3 s (32,298 image files), a small part of what reading it takes;
- the settings that decide what is read;
- the source code of the readers and Pillow's version, so that a corrected reader does not hand out what the old one
  read.

A file is hashed again after reading, and an entry is written only when both keys agree; the key of a directory, and of
a parquet file, is made of the very bytes that were read. What changed meanwhile is never stored under the wrong key. An
entry is written beside its final name and moved there, so a reader sees a whole one or none; the CRC-32 that .npz keeps
of each array catches damage on the disk. A damaged entry is ignored and replaced; a directory that cannot be written
costs time, not the run.

Knows nothing of CSV columns, images or splits.
"""

import hashlib
import logging
import math
import os
import struct
import zipfile
from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import platformdirs

from fer import errors, labels
from fer.data import container, csv_file, decode, duplicates, folder, layouts, official, parquet
from fer.data import faces as faces_module
from fer.data.container import Directory
from fer.data.faces import Faces, Official
from fer.files import at_home, whole_file

_log = logging.getLogger(__name__)

# What decides how a source's bytes become faces.
_CODE = (errors, labels, container, csv_file, decode, duplicates, faces_module, folder, layouts, official, parquet)


def cache_directory() -> Path:
    """Where entries lie: `$FER_CACHE`, else the user's cache directory."""
    own = os.environ.get("FER_CACHE")
    try:
        return at_home(own) if own else platformdirs.user_cache_path("fer-lightning")
    except RuntimeError:  # a user without a home: nothing is kept, and a warning says so
        return Path(os.devnull, "fer-lightning")


def has_entry(source: Path) -> bool:
    """Whether anything is stored for `source`, under whichever key."""
    return _entry(source).exists()


def source_key(source: Path, how: object = None, tree: Directory | None = None) -> str:
    """The digest that an entry must carry to stand for `source` as it is now.

    Args:
        source: a file or directory.
        how: the settings that decide what is read; their `repr` counts.
        tree: the directory, or one that holds the file; what was read through it already is not read for the key.

    Raises:
        OSError: the source cannot be read.
    """
    digest = hashlib.blake2b(f"{PIL.__version__} {how!r}".encode(), digest_size=32)
    for module in _CODE:
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    if source.is_file():
        digest.update((tree or Directory(source.parent, [source.name])).digest(source.name))
        return digest.hexdigest()
    if tree is None:
        tree = Directory(source)
    names = sorted(name for name in tree.names if name.endswith("/") or _is_read(name))
    digest.update("\0".join(names).encode(errors="surrogateescape"))
    files = [name for name in names if not name.endswith("/")]
    small = [name for name in files if name not in tree.digests and not parquet.is_parquet(name)]
    deque(tree.read(small), maxlen=0)  # in a third of the time
    for name in files:
        digest.update(tree.digest(name))
    return digest.hexdigest()


def _is_read(name: str) -> bool:
    return folder.is_image(name) or layouts.is_label_file(name) or parquet.is_parquet(name)


def load(source: Path, key: str, memory: float = math.inf) -> tuple[Faces, list[str]] | None:
    """The faces and notes stored for `source` under `key`; None when there are none, or no whole ones.

    Args:
        source: what was read.
        key: of `source_key`.
        memory: bytes; images that take more are mapped into memory from the disk, and not checked for damage.
    """
    path = _entry(source)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as entry:
            if entry["key"] != key:
                return None
            images = _map_images(path)
            if images.nbytes <= memory:
                images = entry["images"]
            persons = entry["persons"]
            rows, splits, sure = entry["official"]
            found = Official(rows, splits.astype(np.int8), sure.astype(np.bool_)) if len(rows) else None
            faces = Faces(
                images,
                entry["labels"],
                entry["splits"],
                entry["ids"],
                found,
                persons if len(persons) else None,
                str(entry["form"]),
                tuple(entry["emotions"].tolist()),
            )
            return faces, entry["notes"].tolist()
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged .npz raises a dozen kinds
        _log.debug("%s is damaged (%s) and will be replaced", path, error)
        return None


def _map_images(path: Path) -> npt.NDArray[np.uint8]:
    """The images of an entry as they lie in it: `np.savez` compresses nothing, a member is a whole .npy file."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as member:
        version = np.lib.format.read_magic(member)
        assert version == (1, 0)
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        begin = member.tell()
        info = archive.getinfo("images.npy")
    with path.open("rb") as file:
        file.seek(info.header_offset + 26)  # of the local header: the lengths of the name and of the extra field
        name, extra = struct.unpack("<HH", file.read(4))
    offset = info.header_offset + 30 + name + extra + begin
    return np.memmap(path, dtype, "c", offset, shape)  # "c": torch wants to write, in theory; the file stays as it is


def save(source: Path, key: str, faces: Faces, notes: list[str]) -> None:
    """Stores faces and notes for `source` under `key`, in place of what was stored for it. A failure is only logged."""
    path = _entry(source)
    found = faces.official
    try:
        with whole_file(path, mode=0o600) as file:
            np.savez(
                file,
                key=np.array(key),
                images=faces.images,
                labels=faces.labels,
                splits=faces.splits,
                ids=faces.ids,
                notes=np.array(notes, np.str_),
                form=np.array(faces.form),
                emotions=np.array(faces.emotions),
                persons=np.empty(0, np.str_) if faces.persons is None else faces.persons,
                official=np.empty((3, 0)) if found is None else np.stack([found.rows, found.splits, found.sure]),
            )
    except OSError as error:
        _log.warning(
            "%s cannot be written (%s): the data will be parsed again at each start; FER_CACHE names another directory",
            path,
            error.strerror or error,
        )


def _entry(source: Path) -> Path:
    path = source.resolve()
    digest = hashlib.blake2b(os.fsencode(path), digest_size=8).hexdigest()
    return cache_directory() / f"{path.name[:40]}-{digest}.npz"  # with all of a long name it would be too long
