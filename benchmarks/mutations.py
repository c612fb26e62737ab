"""Breaks the code in small ways, one at a time, and runs the tests that should notice.

    python benchmarks/mutations.py [NAME ...]

Each mutation changes one line in a copy of this tree. One that no test kills is a hole in the tests: the exit code is
then 1.
"""

import argparse
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Mutation:
    """One change, and the tests that should fail after it."""

    file: str
    old: str
    new: str
    tests: str


AVERAGING = "tests/training/test_averaging.py"
RUNDIR = "tests/test_rundir.py"
CHECKPOINT = "tests/test_checkpoint.py"
MUTATIONS = {
    "average_swapped": Mutation(
        "fer/training/callbacks.py", "*self._lists, 1 - decay)", "*self._lists, decay)", AVERAGING
    ),
    "average_without_warm_up": Mutation(
        "fer/training/callbacks.py",
        "min(self.decay, (1 + self._count) / (10 + self._count)) if",
        "self.decay if",
        AVERAGING,
    ),
    "average_one_step_off": Mutation(
        "fer/training/callbacks.py", "(1 + self._count) / (10", "(2 + self._count) / (10", AVERAGING
    ),
    "file_as_argument_of_a_network": Mutation(
        "fer/models/__init__.py", "return key in _NOT_ARGUMENTS or", "return", "tests/models/test_models.py"
    ),
    "text_as_argument_of_a_network": Mutation(
        "fer/models/__init__.py",
        'raise UserError(f"{shown}: give a number, true, false or a short list of numbers")\n        elif',
        "pass\n        elif",
        CHECKPOINT,
    ),
    "network_imported_because_a_file_names_it": Mutation(
        "fer/models/__init__.py",
        "        for entry in importlib",
        "        hand_over(name)\n        for entry in importlib",
        "tests/models/test_own_network.py",
    ),
    "foreign_targets_run": Mutation("fer/resume.py", "    if foreign:\n", "    if False:\n", RUNDIR),
    "saved_settings_resolved": Mutation("fer/rundir.py", 'raise yaml.YAMLError("it uses aliases")', "pass", RUNDIR),
    "decided_settings_ignored": Mutation("fer/resume.py", "    if changed:\n", "    if False:\n", RUNDIR),
    "two_runs_in_one_directory": Mutation(
        "fer/rundir.py", "            run.mkdir()\n", "            run.mkdir(exist_ok=True)\n", RUNDIR
    ),
    "occupied_directory_taken": Mutation(
        "fer/rundir.py", "    elif not same(settings, load(run)):", "    elif False:", RUNDIR
    ),
    "leftovers_of_running_processes_removed": Mutation(
        "fer/rundir.py", "and not machine.is_running(int(match[2]))", "", RUNDIR
    ),
    "not_renamed": Mutation("fer/files.py", "            temporary.replace(path)\n", "", CHECKPOINT),
    "links_followed": Mutation("fer/files.py", "os.O_CREAT | os.O_EXCL |", "os.O_CREAT |", RUNDIR),
    "digest_not_compared": Mutation(
        "fer/checkpoint.py", "written is not None and written != digest", "False and written != digest", CHECKPOINT
    ),
    "weights_that_are_no_numbers": Mutation(
        "fer/checkpoint.py", "isinstance(tensor, torch.Tensor) and torch.isfinite(tensor).all()", "True", CHECKPOINT
    ),
    "classes_twice": Mutation(
        "fer/models/network.py", "not 2 <= len(set(self.classes)) == len(self.classes)", "False", CHECKPOINT
    ),
    "last_checkpoint_only_after_validation": Mutation(
        "fer/training/callbacks.py",
        "        if not self._should_skip_saving_checkpoint(trainer):\n",
        "        if False:\n",
        RUNDIR,
    ),
    "tokens_shown": Mutation("fer/inference/sources.py", "(?:token|key|", "(?:", "tests/inference/test_sources.py"),
}


def survives(mutation: Mutation) -> bool:
    """Whether the tests pass in spite of a mutation."""
    with TemporaryDirectory() as folder:
        copy = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(
            ".git", ".venv", "outputs", "__pycache__", "build", "dist", "*.egg-info", ".*_cache"
        )
        shutil.copytree(ROOT, copy, ignore=ignored)
        file = copy / mutation.file
        text = file.read_text()
        if text.count(mutation.old) != 1:
            sys.exit(f"{mutation.file}: {mutation.old!r} stands there {text.count(mutation.old)} times, not once")
        file.write_text(text.replace(mutation.old, mutation.new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", *mutation.tests.split()]
        environment = {**os.environ, "PYTHONPATH": str(copy)}
        done = subprocess.run(command, cwd=copy, env=environment, capture_output=True, check=False)
        return done.returncode == 0


def main() -> None:
    """Prints what became of each mutation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*MUTATIONS, []], help="of mutations; all without any")
    names = parser.parse_args().names or list(MUTATIONS)
    survivors = []
    for name in names:
        alive = survives(MUTATIONS[name])
        print(f"{name:<45}{'SURVIVES' if alive else 'killed'}", flush=True)
        survivors += [name] if alive else []
    print(f"{len(names) - len(survivors)} of {len(names)} killed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
