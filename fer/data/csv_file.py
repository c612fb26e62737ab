"""Reads the CSV form of FER2013: one row per face, its 48x48 gray values written out as text.

Knows the columns of Kaggle's `fer2013.csv`, `icml_face_data.csv` and the challenge's `train.csv`; takes an open stream
and knows nothing of files, compression or caches.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt

from fer.data.faces import SIZE, TEST, TRAIN, UNSPLIT, VAL, Faces
from fer.errors import UserError
from fer.labels import ALL_EMOTIONS, emotion_from_spelling

USAGES = {b"Training": TRAIN, b"PublicTest": VAL, b"PrivateTest": TEST}

_PIXELS = SIZE * SIZE
_BLOCK = 64  # rows parsed at once: 0.5 MB of text, so that a block's arrays stay in the processor's cache
_LINE_LIMIT = 1_000_000
_HEADER_LIMIT = 4096  # bytes; a longer first line is no header, and perhaps no text
_CODES = {str(code).encode(): code for code in range(len(ALL_EMOTIONS))}  # others have names and no numbers
_AROUND = b' "\t\r\n'  # what may stand around a field


def read_csv(stream: IO[bytes], name: str, emotions: Sequence[str] = ALL_EMOTIONS) -> Faces:
    """All faces of a FER2013 CSV.

    The columns `emotion` (0 to 6, 7 for contempt as in CK+'s `ckextended.csv`, also as 3.0 or by name), `pixels` (2,304
    whole numbers from 0 to 255, row by row) and `Usage` may come in any order; without `Usage` every row is UNSPLIT.
    Blank lines are skipped.

    Args:
        stream: the text as bytes (UTF-8), from its beginning.
        name: what error messages call it.
        emotions: those that names may say: `fer.labels.ALL_EMOTIONS` and others.

    Returns:
        The rows in the file's order, named by their number from 0, not counting the header.

    Raises:
        UserError: no such header, no rows, or a row that is not as described; names the line and the fault.
    """
    header = read_header(stream, name)
    emotion, pixels = header.index("emotion"), header.index("pixels")
    usage = header.index("usage") if "usage" in header else None

    images: list[npt.NDArray[np.uint8]] = []
    labels: list[int] = []
    splits: list[int] = []
    lines = ((number, line) for number, line in enumerate(_lines(stream, name), start=2) if not line.isspace())
    while block := list(islice(lines, _BLOCK)):
        texts = []
        first = len(labels)
        for row, (number, line) in enumerate(block, start=first):
            fields = [field.strip(_AROUND) for field in line.split(b",")]
            if len(fields) != len(header):
                _refuse(name, number, row, f"has {len(fields)} columns where the header has {len(header)}")
            code = _CODES.get(fields[emotion])
            if code is None:
                code = _emotion(fields[emotion], emotions)
            if code is None:
                codes = ", ".join(
                    [*(f"{code} {name}" for code, name in enumerate(ALL_EMOTIONS)), *emotions[len(_CODES) :]]
                )
                _refuse(name, number, row, f"has the label {_shown(fields[emotion])}, which is none of {codes}")
            split = UNSPLIT if usage is None else USAGES.get(fields[usage])
            if split is None:
                known = ", ".join(known.decode() for known in USAGES)
                _refuse(name, number, row, f"has the Usage {_shown(fields[usage or 0])}, which is none of {known}")
            labels.append(code)
            splits.append(split)
            texts.append(fields[pixels])
        values = _parse_block(texts)
        if values is None:
            values = np.empty((len(block), _PIXELS), np.uint8)
            for row, ((number, _), text) in enumerate(zip(block, texts, strict=True)):
                values[row] = _parse_row(text, name, number, first + row)
        images.append(values.reshape(-1, SIZE, SIZE))
    if not images:
        raise UserError(f"{name} has a header but no rows; download or copy it again")
    return Faces(
        np.concatenate(images),
        np.array(labels, np.int64),
        np.array(splits, np.int8),
        np.arange(len(labels)).astype(np.str_),
        emotions=tuple(emotions),
    )


def _emotion(text: bytes, emotions: Sequence[str]) -> int | None:
    """The code of an emotion's name, or of a number with a decimal point, as pandas writes it; None for others."""
    if text.endswith(b".0"):
        return _CODES.get(text[:-2])
    emotion = emotion_from_spelling(text.decode(errors="replace"), emotions)
    return None if emotion is None else emotions.index(emotion)


def _lines(stream: IO[bytes], name: str) -> Iterator[bytes]:
    """The lines of a stream, none of which may fill the memory, as one of a few compressed bytes can."""
    while line := stream.readline(_LINE_LIMIT):
        if len(line) == _LINE_LIMIT:
            raise UserError(f"{name} has a line of more than {_LINE_LIMIT:,} bytes; a face takes a hundredth of that")
        yield line


def read_header(stream: IO[bytes], name: str) -> list[str]:
    """The column names, stripped and in lower case; `emotion` and `pixels` are among them."""
    line = stream.readline(_HEADER_LIMIT).removeprefix(b"\xef\xbb\xbf")  # Excel's byte order mark
    if not line.strip():
        raise UserError(f"{name} is empty or starts with a blank line; download or copy it again")
    try:
        text = line.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(
            f"{name} is no UTF-8 text (a spreadsheet may have to save it as such): data.path takes a FER2013 CSV "
            "(also as .gz, .xz or .zip), "
            "a .zip or .tar archive, or a folder"
        )
    header = [column.strip(' "\t\r\n').lower() for column in text.split(",")]
    if header[0].isdigit():
        raise UserError(f"{name} has no header: put the names of its columns, emotion,pixels,Usage, on the first line")
    if ";" in header[0]:
        raise UserError(f"{name} has semicolons between its columns; save it with commas")
    missing = [column for column in ("emotion", "pixels") if column not in header]
    if missing:
        hint = "; Kaggle's test.csv has no labels, take icml_face_data.csv" if header == ["pixels"] else ""
        raise UserError(
            f"{name} has no column {' and no column '.join(missing)} (its first line is {_shown(line.strip())}): "
            f"data.path takes FER2013's CSV, with the columns emotion,pixels,Usage{hint}"
        )
    return header


def _parse_block(texts: list[bytes]) -> npt.NDArray[np.uint8] | None:
    """The pixels of several rows, uint8 (rows, 2304); None unless every row is plainly right.

    Plainly right: 2,304 numbers of one to three digits, at most 255, with single spaces between. Whatever else may be
    wrong or merely unusual, `_parse_row` finds out.
    """
    text = np.frombuffer(b" ".join([*texts, b""]), np.uint8)  # each number followed by one space
    digits = text - np.uint8(ord("0"))  # unsigned: whatever is no digit becomes 10 or more
    spaces = np.flatnonzero(text == ord(" "))
    ends = np.cumsum([len(text) + 1 for text in texts]) - 1
    if len(spaces) != len(texts) * _PIXELS or not np.array_equal(spaces[_PIXELS - 1 :: _PIXELS], ends):
        return None
    if np.count_nonzero(digits < 10) + len(spaces) != len(text):
        return None
    lengths = np.diff(spaces, prepend=-1) - 1
    if lengths.min() < 1 or lengths.max() > 3:
        return None
    # A one-digit number at the very start has no byte two or three places before its space: index -1 or -2 is then
    # read, and left out like every other neighbour's digit.
    values = digits[spaces - 1].astype(np.uint16)
    values += np.where(lengths > 1, digits[spaces - 2], 0) * np.uint16(10)
    values += np.where(lengths > 2, digits[spaces - 3], 0) * np.uint16(100)
    if values.max() > 255:
        return None
    return values.astype(np.uint8).reshape(len(texts), _PIXELS)


def _parse_row(text: bytes, name: str, line: int, row: int) -> npt.NDArray[np.uint8]:
    """The pixels of one row, uint8 (2304,), with any white space between them."""
    numbers = text.split()
    for position, number in enumerate(numbers):
        if not number.isdigit() or len(number.lstrip(b"0")) > 3 or int(number) > 255:
            _refuse(name, line, row, f"has {_shown(number)} as pixel {position}, not a whole number from 0 to 255")
    if len(numbers) != _PIXELS:
        _refuse(name, line, row, f"has {len(numbers):,} pixels, not 48x48 = {_PIXELS:,}")
    return np.array([int(number) for number in numbers], np.uint8)


def _refuse(name: str, line: int, row: int, fault: str) -> NoReturn:
    raise UserError(
        f"{name}, line {line:,} (row {row:,}), {fault}; mend or delete the line, or download the file again"
    )


def _shown(text: bytes) -> str:
    """`text` for a message: quoted, on one line, and short."""
    shown = repr(text.decode(errors="replace"))
    return shown if len(shown) <= 60 else f"{shown[:57]}...'"
