"""From pictures' bytes to gray faces. Knows nothing of what their names say.

Pillow reads everything; OpenCV takes half of its time for what FER2013's copies are: plain gray PNG and JPEG files
of the wanted size. It is asked only where its answer is Pillow's to the pixel, damaged files included.
"""

import io
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from textwrap import shorten

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fer.data.container import Batch, Container
from fer.data.faces import SIZE, Faces
from fer.data.folder import Place, natural, to_face
from fer.errors import UserError
from fer.files import picture_formats
from fer.labels import ALL_EMOTIONS

Images = npt.NDArray[np.uint8]

_THREADS = 2
_SWITCH = 0.0005  # seconds that one thread may keep the other waiting: by default ten times as long, a hundred pictures
BATCH = 256  # pictures whose bytes a thread holds at once

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_formats = cache(picture_formats)
_GRAY_FRAMES = (b"\xff\xc0\x00\x0b\x08", b"\xff\xc2\x00\x0b\x08")  # baseline or progressive, 8 bits, one component
# Chunks that change no pixel. Others (tRNS, eXIf, acTL) need Pillow.
_CHUNKS = frozenset((b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tEXt", b"zTXt", b"iTXt", b"tIME", b"gAMA", b"sRGB", b"cHRM"))


def read_places(
    container: Container,
    places: Sequence[Place],
    name: str,
    size: int = SIZE,
    emotions: Sequence[str] = ALL_EMOTIONS,
) -> Faces:
    """The pictures at the given places as faces.

    Args:
        container: where they lie.
        places: the pictures, in the order of the faces.
        name: what messages call the container.
        size: pixels per side of the faces.
        emotions: what the places' labels are positions in.

    Raises:
        UserError: pictures that cannot be read, by name.
    """
    row_of = {place.name: row for row, place in enumerate(places)}
    images = np.empty((len(places), size, size), np.uint8)

    def rows(batch: Batch) -> list[tuple[int, bytes]]:
        return [(row_of[file], content) for file, content in batch()]

    broken = {}
    for row, error in decode(
        (partial(rows, batch) for batch in container.batches(list(row_of), BATCH)), images
    ).items():
        known = not isinstance(error, UnidentifiedImageError)
        broken[places[row].name] = shorten(str(error), 80) if known else "no known image format"
    if broken:
        shown = "; ".join(f"{file} ({broken[file]})" for file in sorted(broken, key=natural)[:5])
        more = f"; and {len(broken) - 5:,} more" if len(broken) > 5 else ""
        raise UserError(
            f"{name}: {len(broken):,} of {len(places):,} images cannot be read: {shown}{more}; "
            "replace or delete them, or download the data again"
        )
    return Faces(
        images,
        np.array([place.label for place in places], np.int64),
        np.array([place.split for place in places], np.int8),
        np.array([place.row for place in places], np.str_),
        persons=np.array([place.person for place in places], np.str_) if places and places[0].person else None,
        emotions=tuple(emotions),
    )


def decode(batches: Iterable[Callable[[], Iterable[tuple[int, bytes]]]], images: Images) -> dict[int, Exception]:
    """Writes each picture's face, as `face_of` makes it, into its row of `images`; returns what is wrong, by row.

    Batches are read and decoded by two threads: the system, OpenCV and Pillow let the other one run meanwhile. (One
    thread that reads for another that decodes is hardly faster than one alone: Python's own share is then in the way.)

    Args:
        batches: each gives, when it is called, rows and their pictures' bytes.
        images: uint8 (N, S, S), filled.
    """
    broken: dict[int, Exception] = {}

    def decode_one(batch: Callable[[], Iterable[tuple[int, bytes]]]) -> None:
        for row, content in batch():
            try:
                images[row] = face_of(content, images.shape[1])
            except Exception as error:  # on damaged files Pillow's decoders raise nearly anything
                broken[row] = error

    interval = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH)
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            under_way: deque[Future[None]] = deque()
            for batch in batches:
                under_way.append(pool.submit(decode_one, batch))
                if len(under_way) > 2 * _THREADS:
                    under_way.popleft().result()
            for future in under_way:
                future.result()
    finally:
        sys.setswitchinterval(interval)
    return broken


def face_of(content: bytes, size: int) -> npt.NDArray[np.uint8]:
    """The face as `fer.data.folder.to_face` makes it, uint8 (size, size).

    Raises:
        Exception: whatever Pillow raises on damaged data and on what is no picture.
    """
    if _is_plain(content, size):
        import cv2  # here: a start that finds the cache decodes nothing

        face = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if face is not None and face.shape == (size, size) and face.dtype == np.uint8:
            return np.asarray(face, np.uint8)
    with Image.open(io.BytesIO(content), formats=_formats()) as image:
        return to_face(image, size)


def _is_plain(content: bytes, size: int) -> bool:
    if content.startswith(_JPEG):
        gray = any(frame + struct.pack(">HH", size, size) in content for frame in _GRAY_FRAMES)
        return gray and b"Exif" not in content and content.endswith(b"\xff\xd9")
    # Width, height, 8 bits, gray, and neither compression, filters nor interlacing out of the ordinary.
    if not content.startswith(_PNG) or content[16:29] != struct.pack(">IIBBBBB", size, size, 8, 0, 0, 0, 0):
        return False
    place = len(_PNG)
    kind = b""
    while place + 12 <= len(content) and kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, place)
        kind = content[place + 4 : place + 8]
        end = place + 8 + length
        # OpenCV takes files that are cut or damaged: the checksums are looked at here.
        if kind not in _CHUNKS or content[end : end + 4] != zlib.crc32(content[place + 4 : end]).to_bytes(4):
            return False
        place = end + 4
    return kind == b"IEND"
