"""What this computer and this job offer: rank and job, cores and threads, precision. Before torch is imported.

Torch splits a layer among its threads and waits for the slowest at its end. OpenMP's threads wait by spinning, and so
keep busy the core that the slowest one needs: on two cores beside a process that used one of them, a network that took
5 ms with one thread took 630 ms on average with two. When waiting threads slept, it took 18 ms, as with one.
"""

import ctypes
import functools
import logging
import mmap
import os
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from fer.errors import UserError

_MOST_THREADS = 4  # for inference: a handful of 48x48 faces gains nothing from more
_HEAP = 2 << 30
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h
_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")  # torchrun's, SLURM's, and two of Lightning's


def is_first() -> bool:
    """Whether this process is the one of its run that writes files and prints; true of a process that is alone.

    Raises:
        UserError: the environment gives it a rank that is no number.
    """
    ranks = {name: os.environ.get(name) or "0" for name in _RANKS}
    for name, rank in ranks.items():
        if not rank.isdecimal():
            raise UserError(f"{name}={rank} in the environment is no process's number; unset {name}")
    return all(int(rank) == 0 for rank in ranks.values())


def job() -> str | None:
    """A name that all processes of a cluster job share and that it keeps when it is requeued; None outside of one.

    Raises:
        UserError: several processes were started by torchrun without a name.
    """
    # Lightning takes jobs of these names for a person's shell, in which one command follows another.
    if "SLURM_JOB_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return f"slurm-{os.environ['SLURM_JOB_ID']}"
    run = os.environ.get("TORCHELASTIC_RUN_ID")
    if run == "none":
        raise UserError(
            "torchrun gave its processes no common name for the run directory; start it with --rdzv-id=NAME, "
            "or on one machine with --standalone"
        )
    return None if run is None else f"torchrun-{run}"


def refuse_second_sweep(trainer: Mapping[str, Any], launcher: str) -> None:
    """Raises UserError for a job of a sweep whose other processes would start the whole sweep again.

    Lightning starts them by the command line of the first, which has -m in it; not where SLURM starts all.

    Args:
        trainer: the arguments of Lightning's Trainer.
        launcher: the class of Hydra's launcher.
    """
    strategy, devices = str(trainer.get("strategy", "auto")), trainer.get("devices", "auto")
    if launcher.endswith("SlurmLauncher") or strategy.endswith(("_spawn", "_fork", "_notebook")):
        return
    if strategy == "auto" and devices in ("auto", -1, "-1"):
        import torch

        several = torch.accelerator.device_count() > 1 and trainer.get("accelerator") != "cpu"
    elif strategy == "auto":
        several = len(devices) > 1 if isinstance(devices, Sequence) and not isinstance(devices, str) else devices != 1
    else:
        several = strategy.startswith(("ddp", "fsdp", "deepspeed"))
    if several:
        raise UserError(
            f"trainer.strategy={strategy} with trainer.devices={devices} cannot run under -m on one machine: its "
            "second process would start the whole sweep again; use trainer.devices=1, run the jobs one by one without "
            "-m, or take hydra/launcher=submitit_slurm"
        )


def is_preempted() -> bool:
    """Whether SLURM has told this job to make room for another one; not so when a person has cancelled it."""
    return "PreemptTime=2" in _scontrol("show", "job")  # of the year; or None


def requeue() -> bool:
    """Asks SLURM to start this job again; False outside of SLURM, or when it refused."""
    return "SLURM_JOB_ID" in os.environ and _scontrol("requeue") == ""


def _scontrol(*words: str) -> str:
    """What `scontrol` says about this job, errors too."""
    if "SLURM_JOB_ID" not in os.environ:
        return ""
    command = ["scontrol", *words, os.environ["SLURM_JOB_ID"]]
    finished = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return finished.stdout


def sleep_while_waiting() -> None:
    """Lets OpenMP's waiting threads sleep, unless the user has chosen otherwise; too late when torch is imported."""
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def choose_threads() -> int:
    """From 1 to 4: as many as there are free cores; one less where waiting threads spin."""
    free = available_cores() - _load()
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        free -= 1
    return max(1, min(_MOST_THREADS, round(free)))


def available_cores() -> int:
    """The cores that this process may run on, and no more than OMP_NUM_THREADS if that is set."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores(), int(asked)) if asked.isdecimal() and int(asked) else cores()


@functools.cache
def use_huge_pages() -> None:
    """Keeps the memory of this process's tensors, in pages of 2 MB, instead of giving it back after every layer.

    Each batch of a training on the CPU needs a gigabyte for its features. Asked for so much, glibc has the system map
    it anew each time, in pages of 4 KB that are cleared one by one: a fifth of a step's time. Nothing changes where
    there is no glibc, no memory to spare, or where the system forbids huge pages.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mallopt(_M_TRIM_THRESHOLD, -1)  # what is freed stays
    libc.mallopt(_M_MMAP_MAX, 0)  # everything comes from one heap, which is made large here while it takes no memory
    heap = libc.malloc(_HEAP)
    if heap is not None:
        start = -(-heap // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(start, heap + _HEAP - start, mmap.MADV_HUGEPAGE)
        libc.free(heap)


def cores() -> int:
    """The cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> float:
    """The average number of running processes over the last minute; 0 where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):  # Windows has none
        return 0.0


def quieten() -> None:
    """Turns off what Lightning tells everybody at every start, and warnings that a person here need not heed."""
    import lightning.fabric
    import lightning.pytorch  # noqa: F401  # both turn it on when they are imported

    for name in ("lightning.pytorch", "lightning.fabric", "matplotlib.font_manager"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*is deprecated")  # Lightning 2.6 on torch 2.15
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")  # a resumed run
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a login node


def choose_precision(wanted: Any, accelerator: str) -> Any:
    """`wanted`, or for "auto" bf16 where the processor has units for it (elsewhere it would be slower than float32)."""
    if wanted != "auto":
        return wanted
    import torch

    if accelerator != "cpu" and torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator != "cpu" and torch.backends.mps.is_available():
        fast = False
    else:
        there = units()
        fast = bool(there.get("amx_bf16") or there.get("avx512_bf16") or there.get("bf16"))  # the last is Arm's
    return "bf16-mixed" if fast else "32-true"


def units() -> dict[str, Any]:
    """What the processor has units for, by the names that torch has for them; nothing before torch 2.11."""
    import torch

    found: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


class Terminated(BaseException):
    """SIGTERM, or SIGHUP of a terminal that was closed."""


def terminate(signum: int, frame: Any) -> None:
    """A handler of signals that ends the command in order; training takes them over while it runs."""
    raise Terminated


def is_running(process: int) -> bool:
    """Whether a process of this machine is there; True where the system does not tell."""
    if sys.platform == "win32":
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
