"""Writing files so that at any moment a path holds the old content or the new one, whole."""

import csv
import errno
import io
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

try:
    import fcntl
except ImportError:  # Windows has none
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_whole(path: str | Path, content: bytes | memoryview, mode: int | None = None) -> None:
    """Writes beside `path`, flushes to the disk, and renames; makes the directory where it is missing.

    Args:
        path: the file.
        content: all of it.
        mode: permissions, such as 0o600; None for what is usual here.

    Raises:
        OSError: as the file system says (disk full, no permission), about `path`, which is untouched then.
    """
    with whole_file(Path(path), mode) as file:
        file.write(content)


@contextmanager
def whole_file(path: Path, mode: int | None = None) -> Iterator[BinaryIO]:
    """As `write_whole`, of what is written into the file that this gives."""
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            # A file that did not exist before; a link of that name is not followed.
            with open(temporary, "xb", opener=partial(os.open, mode=0o666 if mode is None else mode)) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        error.filename, error.filename2 = str(path), None  # what a person knows, not the temporary file
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock on a file of its own, which is removed at the end; the system lets go of it at any death.

    Where there are no such locks (Windows, some network drives) it holds nothing.

    Raises:
        BlockingIOError: another process has it.
        OSError: the file cannot be made.
    """
    descriptor = _lock(path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(path: Path) -> int | None:
    held = None
    while fcntl is not None and held is None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(path.stat(), os.fstat(descriptor)):
                held = descriptor
        except BlockingIOError:
            raise
        except FileNotFoundError:
            pass  # its holder has just removed it
        except OSError:
            break  # no locks on this drive
        finally:
            if held is None:
                os.close(descriptor)
    return held


def at_home(path: str | Path) -> Path:
    """As `Path.expanduser`, and the path itself where nobody has that name, as a shell takes it."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def is_there(path: str | Path) -> bool:
    """As `Path.exists`, and False of a name that no file can have."""
    try:
        return Path(path).exists()
    except OSError:  # too long, or behind a folder that may not be read
        return False


def is_file(path: str | Path) -> bool:
    """As `Path.is_file`, and False of a name that no file can have."""
    return is_there(path) and Path(path).is_file()


def is_dir(path: str | Path) -> bool:
    """As `Path.is_dir`, and False of a name that no folder can have."""
    return is_there(path) and Path(path).is_dir()


def walk(top: Path, onerror: Callable[[OSError], None]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, behind links, too, but not into a link to a folder around it."""
    above: dict[Path, frozenset[tuple[int, int]]] = {}  # each folder's own and its parents' places on the disks
    for name, subfolders, files in os.walk(top, followlinks=True, onerror=onerror):
        folder = Path(name)
        status = folder.stat()
        own, parents = (status.st_dev, status.st_ino), above.get(folder.parent, frozenset())
        if own in parents:
            subfolders.clear()
            continue
        above[folder] = parents | {own}
        yield folder, subfolders, files


def make_directory(path: Path) -> None:
    """Makes a directory, with its parents, where it is missing.

    Raises:
        OSError: as the file system says; of a place such as /proc it says that something is missing.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise NotADirectoryError(errno.ENOTDIR, "no directory can be made there", str(path)) from error


def new_directory(stem: Path) -> Path | None:
    """Makes a directory that nobody else has: `stem`, or that name and a number; None when there are ten thousand."""
    make_directory(stem.parent)
    for number in range(1, 10_000):
        directory = stem if number == 1 else stem.with_name(f"{stem.name}_{number}")
        with suppress(FileExistsError):
            directory.mkdir()
            return directory
    return None


def printable(text: str) -> str:
    """`text` for a terminal, which would obey control characters, as a file's name may hold them."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def cell(text: str) -> str:
    """`text` for a CSV that a person may open in a spreadsheet, which would take what begins so for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def as_csv(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def as_png(figure: "Figure") -> bytes:
    """A figure of matplotlib as a PNG file, in its own resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def picture_formats() -> list[str]:
    """All that Pillow reads but EPS: that is a program, whose sender Ghostscript would obey."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name != "EPS"]


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other process, also of another machine, takes; short enough for a file system."""
    return path.with_name(f".{path.name[:40]}.{host()}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def host() -> str:
    """What this machine is called in the names of temporary files."""
    return socket.gethostname()[:20]
