"""Writing files so that at any moment a path holds the old content or the new one, whole."""

import os
from pathlib import Path


def write_whole(path: str | Path, content: bytes | memoryview) -> None:
    """Writes beside `path`, flushes to the disk, and renames; makes the directory where it is missing.

    Raises:
        OSError: as the file system says (disk full, no permission); `path` is untouched then.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
