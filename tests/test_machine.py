"""Memory of a training on the CPU, kept in large pages; what Lightning says."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from fer import machine
if sys.argv[1] == "huge":
    machine.use_huge_pages()
    machine.use_huge_pages()
def layers():
    return [np.ones(3 << 20, np.uint8) for _ in range(20)]
layers(), layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers(), layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")
def test_memory_that_was_used_once_is_not_mapped_again() -> None:
    assert faults("huge") <= 20
    # The test would say nothing if memory were kept anyway.
    assert faults("plain") > 100


def test_lightning_is_quiet_also_where_it_was_not_imported_before() -> None:
    code = """
import logging
from fer import machine
machine.quieten()
import lightning.fabric, lightning.pytorch
print([logging.getLogger(f"lightning.{name}").isEnabledFor(logging.INFO) for name in ("fabric", "pytorch")])
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[False, False]\n"
