"""How many threads inference may use, and what makes more than one safe. Imports neither torch nor OpenCV.

Torch splits a layer among its threads and waits for the slowest at its end. OpenMP's threads wait by spinning, and so
keep busy the core that the slowest one needs: on two cores beside a process that used one of them, a network that took
5 ms with one thread took 630 ms on average with two. When waiting threads slept, it took 18 ms, as with one.
"""

import os
import sys

_MOST = 4  # a handful of 48x48 faces gains nothing from more


def sleep_while_waiting() -> None:
    """Lets OpenMP's waiting threads sleep, unless the user has chosen otherwise; too late when torch is imported."""
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_threads() -> int:
    """From 1 to 4: as many as there are free cores; one less where waiting threads spin."""
    free = available_cores() - _load()
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        free -= 1
    return max(1, min(_MOST, round(free)))


def available_cores() -> int:
    """The cores that this process may run on, and no more than OMP_NUM_THREADS if that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(asked)) if asked.isdecimal() and int(asked) else cores


def _load() -> float:
    """The average number of running processes over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return 0.0
