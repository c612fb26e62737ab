"""What a process learns from its environment about the processes and the cluster job that it belongs to.

Reads the variables that SLURM, torchrun and Lightning set, before torch is imported. Knows nothing of training.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from fer.errors import UserError

_RANKS = ("RANK", "SLURM_PROCID", "NODE_RANK", "LOCAL_RANK")  # torchrun's, SLURM's, and two of Lightning's


def is_first() -> bool:
    """Whether this process is the one of its run that writes files and prints; true of a process that is alone."""
    return all(int(os.environ.get(name) or 0) == 0 for name in _RANKS)


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
