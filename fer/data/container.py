"""Directories, zip and tar archives as one thing: a set of named files. Nothing is unpacked to disk.

Knows nothing of images, CSV files or data sets.
"""

import gzip
import hashlib
import io
import lzma
import os
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Protocol, Self, cast

from fer.errors import UserError
from fer.files import walk

# A pipe that nobody writes to would be waited for. Windows translates line ends unless it is told not to.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
HASH = partial(hashlib.blake2b, digest_size=32)  # of files
_MOST_BYTES = 256 << 20  # of one file: a picture or a table has a fraction; what unfolds to more is a trap

Batch = Callable[[], Sequence[tuple[str, bytes]]]


class Container(Protocol):
    """A set of files that can be read by name; a context manager that closes what it has open.

    Attributes:
        names: every file's path inside the container, with "/" between the parts, and every folder's, with "/" at the
            end, in no particular order. Hidden files (".name") and macOS' "__MACOSX" are left out. Bytes that are no
            UTF-8 are written out, as "\\xf6".
    """

    names: list[str]

    def open(self, name: str) -> IO[bytes]:
        """A stream of one file's bytes."""

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """The files called `names`, each with its bytes, in the order that is quickest to read."""

    def batches(self, names: Collection[str], size: int) -> Iterator[Batch]:
        """The same in batches of `size` files. Any thread may call one; what can be read late is read then."""
        files = self.read(names)
        while batch := list(islice(files, size)):  # an archive has one place at a time where it is read
            yield partial(tuple, batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None: ...


def open_container(path: Path) -> Container | None:
    """What `path` contains: a directory's files (symbolic links followed) or an archive's; None for any other file.

    An archive is recognised by its content, whatever its name: .zip, and .tar without compression or as .gz or .xz.

    Raises:
        zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError: it is damaged or cannot be
            read. So do the container's methods.
    """
    if path.is_dir():
        return Directory(path)
    if not path.is_file():
        raise UserError(f"{path} is no file and no folder but a pipe or a device; write it to a file first")
    with path.open("rb") as file:
        if file.read(4) in (b"PK\x03\x04", b"PK\x05\x06"):
            return _Zip(path)
        file.seek(0)
        if decompressed(file).read(tarfile.BLOCKSIZE)[257:262] == b"ustar":
            return _Tar(path)
    return None


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """`file`, which stands at its beginning, through gzip or xz where its content shows that it is compressed so."""
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.GzipFile(fileobj=file))
    if head == b"\xfd7zXZ\x00":
        return lzma.LZMAFile(file)
    return file


class Directory(Container):
    """Files on the disk, of which every one that is read leaves its digest.

    Args:
        top: the folder that holds them.
        names: as `Container.names`; None lists the folder, symbolic links followed.

    Attributes:
        digests: of the bytes that were read last, by name.
    """

    def __init__(self, top: Path, names: list[str] | None = None) -> None:
        self._top = top
        given = _names_below(top) if names is None else names
        self._on_disk = {_printable(name): name for name in given}
        self.names = list(self._on_disk)
        if len(self.names) < len(given):
            raise UserError(f"{top} holds files whose names, which are no UTF-8, look the same; rename them")
        self.digests: dict[str, bytes] = {}

    def __exit__(self, *error: object) -> None:
        pass

    def open(self, name: str) -> IO[bytes]:
        """A stream of one file's bytes, all in memory."""
        content = self._file(name).read_bytes()
        self.digests[name] = HASH(content).digest()
        return io.BytesIO(content)

    def digest(self, name: str) -> bytes:
        """Of the bytes that were read last; of a file that was not read, of what it holds, without keeping it."""
        if name not in self.digests:
            with self._file(name).open("rb") as file:
                self.digests[name] = hashlib.file_digest(file, HASH).digest()
        return self.digests[name]

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """As `Container.read`."""
        for name in names:
            path = f"{self._top}/{self._on_disk.get(name, name)}"
            descriptor = os.open(path, _FLAGS)  # in a third of the time of `open`
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise self._no_file(name)
                content = _whole(partial(os.read, descriptor), status.st_size, path)
                self.digests[name] = HASH(content).digest()
                yield name, content
            finally:
                os.close(descriptor)

    def batches(self, names: Collection[str], size: int) -> Iterator[Batch]:
        """As `Container.batches`."""
        remaining = iter(names)
        while batch := list(islice(remaining, size)):
            yield partial(self._read, batch)

    def path(self, name: str) -> Path:
        """Where a file lies."""
        return self._top / self._on_disk.get(name, name)

    def _file(self, name: str) -> Path:
        path = self.path(name)
        if path.exists() and not path.is_file():
            raise self._no_file(name)
        return path

    def _no_file(self, name: str) -> UserError:
        return UserError(f"{self._top / name} is no file but a pipe or a device; take it away")

    def _read(self, names: Collection[str]) -> Sequence[tuple[str, bytes]]:
        return list(self.read(names))


class _Zip(Container):
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except UnicodeDecodeError as error:  # a name that says it is UTF-8
            raise zipfile.BadZipFile(f"a file name that cannot be read: {error}") from error
        # Some Windows programs write "\" between the parts of a path, against the format's specification.
        members = {member.filename.replace("\\", "/"): member for member in self._zip.infolist()}
        self._members = {name: member for name, member in members.items() if not _is_hidden(name)}
        self.names = list(self._members)

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def open(self, name: str) -> IO[bytes]:
        try:
            return self._zip.open(self._members[name])
        except RuntimeError as error:  # a password, or a compression that Python lacks
            raise UserError(f"{self._path} cannot be read ({error}); unpack it and name the folder") from error

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with self.open(name) as file:
                yield name, _whole(file.read, self._members[name].file_size, f"{self._path}: {name}")


class _Tar(Container):
    def __init__(self, path: Path) -> None:
        self._path = path
        self._tar = tarfile.open(path)  # noqa: SIM115 - __exit__ closes it
        try:
            self._members = self._list()
        except BaseException:
            self._tar.close()
            raise
        self.names = list(self._members)

    def _list(self) -> dict[str, tarfile.TarInfo]:
        members: dict[str, tarfile.TarInfo] = {}
        for member in self._tar:
            name = _printable(posixpath.normpath(member.name))
            if name != "." and not _is_hidden(name) and (member.isdir() or member.isreg() or _is_link(member)):
                members[f"{name}/" if member.isdir() else name] = member
        # To `tarfile` a damaged header or a cut between two members is an end; a whole archive ends in blocks of zeros.
        assert self._tar.fileobj is not None
        self._tar.fileobj.seek(self._tar.offset)
        if self._tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"nothing can be read behind {name}")
        while self._tar.fileobj.read(1 << 20):  # to the very end, where gzip and xz keep the checksum of it all
            pass
        folders = {".", *(name[:end] for name in members for end, letter in enumerate(name) if letter == "/")}
        for name, member in members.items():
            target = posixpath.join(posixpath.dirname(name), member.linkname)
            if member.issym() and posixpath.normpath(target) in folders:
                raise UserError(
                    f"{self._path}: {name} is a link to a folder; pack what it stands for (tar --dereference)"
                )
        return members

    def __exit__(self, *error: object) -> None:
        self._tar.close()

    def open(self, name: str) -> IO[bytes]:
        try:
            file = self._tar.extractfile(self._members[name])
        except (KeyError, RecursionError) as error:  # the second: links to each other
            raise UserError(f"{self._path}: {name} is a link to a file that the archive does not hold") from error
        assert file is not None  # only folders have no content
        return file

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        # In the archive's order: to go back in a compressed file is to start again from its beginning.
        for name in sorted(names, key=lambda name: self._members[name].offset):
            member = self._members[name]  # of a link, which has no size of its own, the other file is read
            with self.open(name) as file:
                yield name, _whole(file.read, member.size if member.isreg() else _MOST_BYTES, f"{self._path}: {name}")


def _names_below(top: Path) -> list[str]:
    names: list[str] = []
    for folder, subfolders, files in walk(top, _raise):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        prefix = folder.relative_to(top).as_posix() + "/"
        if prefix == "./":
            prefix = ""
        else:
            names.append(prefix)
        names += [prefix + name for name in files if not _is_hidden(name)]
    return names


def _whole(read: Callable[[int], bytes], size: int, name: str) -> bytes:
    """All of a file that says it has `size` bytes: Python sets aside as much memory as it is asked to read.

    Raises:
        UserError: it is larger than anything that belongs here, as a few kilobytes of zeros, compressed, can be.
    """
    most = min(size, _MOST_BYTES)
    content = read(most + 1)
    while 0 < len(content) < most and (more := read(most + 1 - len(content))):  # a disk behind a network
        content += more
    if len(content) > _MOST_BYTES:
        raise UserError(f"{name} unfolds to more than {_MOST_BYTES >> 20} MB, more than a picture or a table has")
    return content


def _is_link(member: tarfile.TarInfo) -> bool:
    return member.islnk() or member.issym()


def _printable(name: str) -> str:
    """The name with the bytes written out that are no UTF-8: Python's stand-ins for them can be written nowhere."""
    return name if name.isascii() else os.fsencode(name).decode(errors="backslashreplace")


def _is_hidden(name: str) -> bool:
    return any(part == "__MACOSX" or (part.startswith(".") and part != ".") for part in name.split("/"))


def _raise(error: OSError) -> None:
    raise error
