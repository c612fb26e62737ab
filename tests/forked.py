"""Runs scripts as a person would, but for the seconds of imports: in forks of a process that has them behind it.

torch, Lightning and what they bring are imported once per test process; everything of this project is imported anew by
every script, in a process of its own with its own directory, environment and output.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from unittest.mock import patch

_HEAVY = ["lightning.pytorch", "torchmetrics.classification", "torchvision", "timm.optim", "captum.attr", "matplotlib"]


def run(
    script: Path, words: Sequence[str], cwd: Path, env: Mapping[str, str], outputs: Path, timeout: float
) -> "CompletedProcess[str]":
    """As `subprocess.run([sys.executable, script, *words])`; `outputs` is a directory for what is printed."""
    printed = [outputs / "stdout", outputs / "stderr"]
    process = context().Process(target=_as_main, args=(script, list(words), cwd, dict(env), printed))
    with patch.dict(os.environ, {"OMP_NUM_THREADS": env["OMP_NUM_THREADS"]}):  # read when torch is imported
        process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutExpired([str(script), *words], timeout)
    out, error = (file.read_text() for file in printed)
    return CompletedProcess([str(script), *words], process.exitcode, out, error)


def context() -> ForkServerContext:
    """Of processes that have the heavy libraries."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_HEAVY)
    return context


def _as_main(script: Path, words: list[str], cwd: Path, env: dict[str, str], printed: Sequence[Path]) -> None:
    for descriptor, file in zip((1, 2), printed, strict=True):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = [str(script), *words]
    sys.path[:0] = [str(script.parent), *env.get("PYTHONPATH", "").split(os.pathsep)]
    try:
        runpy.run_path(str(script), run_name="__main__")
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
