"""How many threads inference may use, and what makes more than one safe. Imports neither torch nor OpenCV.

Eager torch splits every layer among its threads and waits at the end of each for the slowest. When one of them finds
no free core, GNU OpenMP's waiting threads spin on the cores that it needs: on two cores beside one busy process a
network that took 5 ms with one thread took 630 ms on average with two, and 18 ms when they waited without spinning.
"""

import os

_MOST = 4  # a handful of 48x48 faces gains nothing from more


def choose_threads() -> int:
    """From 1 to 4: the cores that this process may use, less those that are busy, less one for video and drawing."""
    free = available_cores() - _load()
    return max(1, min(_MOST, round(free) - 1))


def available_cores() -> int:
    """The number of cores that this process may run on, which may be fewer than the computer has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def wait_without_spinning() -> None:
    """Makes OpenMP's idle threads sleep, unless the user has chosen otherwise; works before torch is first imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def _load() -> float:
    """The average number of running processes over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return 0.0
