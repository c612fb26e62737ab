"""What surrounds every command from its first import on: signals, mistakes, a closed terminal, exit codes.

0 done, 2 a mistake that a person can mend, 130 Ctrl-C (and what ends infer.py in order), 143 SIGTERM or a closed
terminal.
"""

import contextlib
import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TextIO

from fer import machine
from fer.errors import EXIT_CODE, UserError
from fer.files import printable

# What the file system says when it is not the program's fault.
_UNWRITABLE = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "ENOTDIR", "EISDIR", "EEXIST", "ENAMETOOLONG")
}


def run(name: str) -> NoReturn:
    """Runs `fer.commands.NAME.main` with the words of the command line, and exits."""
    sys.stdout, sys.stderr = _steady(sys.stdout, 1), _steady(sys.stderr, 2)
    code = 1
    try:
        _listen()
        _need_a_directory()
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # our own mistakes deserve a whole traceback
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # see fer.machine; before torch is imported
        code = importlib.import_module(f"fer.commands.{name}").main(sys.argv[1:])
    except UserError as error:
        complain(str(error).splitlines())
        code = EXIT_CODE
    except KeyboardInterrupt:
        _deafen()
        print("Interrupted; what was written before is whole.", file=sys.stderr)
        code = 130
    except machine.Terminated:
        _deafen()
        print("Terminated; what was written before is whole.", file=sys.stderr)
        code = 143
    except OSError as error:
        complain([in_words(error)])
        code = EXIT_CODE
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    if code == 0 and isinstance(sys.stdout, _Steady) and sys.stdout.lost is not None:
        complain([f"what was printed cannot be written: {sys.stdout.lost.strerror}; make room and run it again"])
        code = EXIT_CODE
    sys.exit(code)


def complain(found: Sequence[str]) -> None:
    """Prints mistakes to standard error, one per line."""
    print("\n".join(f"error: {printable(text)}" for text in found), file=sys.stderr)


def in_words(error: OSError) -> str:
    """The message for a full disk or a place that must not be written; raises every other error again."""
    if error.errno not in _UNWRITABLE:
        raise error
    done = "read or written" if error.errno in (errno.EACCES, errno.EPERM) else "written"
    return (
        f"{error.filename or 'a file'} cannot be {done}: {error.strerror}; make room or choose another place; "
        "what was written before is whole"
    )


def _need_a_directory() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the current directory has been deleted; go to another one") from None


def _listen() -> None:
    """Turns SIGTERM into an exception, and SIGHUP, too, unless it was ignored at the start (nohup)."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, machine.terminate)


def _deafen() -> None:
    """A second Ctrl-C while the first is answered changes nothing."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Steady:
    """A text stream whose reader may go away: from then on, what is printed is dropped.

    Attributes:
        lost: why something could not be written that somebody wants to read: a full disk.
    """

    def __init__(self, stream: TextIO, descriptor: int) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self.lost: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self._stream.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError) as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EIO):
            self.lost = error
        with contextlib.suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._descriptor)
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _steady(stream: TextIO | None, descriptor: int) -> Any:
    """The stream, or nowhere if it was closed before the start."""
    if stream is None:
        return Path(os.devnull).open("w", encoding="utf-8")
    return _Steady(stream, descriptor)
