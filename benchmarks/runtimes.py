"""How fast exported networks are, as ratios to torch eager in the same run.

    python benchmarks/runtimes.py                                   senet, net, resnet18; one thread and all
    python benchmarks/runtimes.py --models senet --threads 1
    python benchmarks/runtimes.py --ckpt RUN/checkpoints/best.ckpt  a trained network

Every way of running is a process of its own, so that memory is its own. One measures for a quarter of a second, then
the next, and so on in turns: whatever else the computer does slows all of them. A call takes raw uint8 faces and gives
probabilities, through `Predictor` where that can be. Networks are untrained unless --ckpt is given, and the ranges of
8-bit numbers are measured on drawn faces: neither changes the time. Memory is the peak of the process, Python and
NumPy included (Linux only).
"""

import argparse
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

WAYS = {
    "torch fp32": ".ckpt",
    "torch bf16": ".ckpt",
    "torch.compile fp32": ".ckpt",
    "ONNX Runtime fp32": ".onnx",
    "ONNX Runtime int8": "_int8.onnx",
}
MODELS: dict[str, dict[str, Any]] = {"senet": {}, "net": {}, "resnet18": {"stem_stride": 1}}
SECONDS = 0.25  # of one turn
CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
console = Console(width=118)  # before standard output is taken away from the exports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--ckpt", type=Path, help="measure this checkpoint instead")
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, os.cpu_count() or 1}))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="torch fp32 is always among them")
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--job", nargs=3, help=argparse.SUPPRESS)  # way, file, threads
    options = parser.parse_args()
    if options.job:
        work(options.job[0], Path(options.job[1]), int(options.job[2]))
        return
    console.print(f"{os.cpu_count()} cores; other programs kept {os.getloadavg()[0]:.1f} of them busy before")
    for model in [options.ckpt.stem] if options.ckpt else options.models:
        with TemporaryDirectory() as folder:
            ckpt = Path(folder) / f"{model}.ckpt"
            if options.ckpt:
                shutil.copy(options.ckpt, ckpt)
            else:
                write_untrained(model, ckpt)
            export_all(ckpt)
            for threads in options.threads:
                report(ckpt, threads, options)


def write_untrained(model: str, path: Path) -> None:
    import torch

    from fer.checkpoint import PREFIX, SPEC_KEY, write_checkpoint
    from fer.models.network import EmotionNetwork, NetworkSpec

    torch.manual_seed(0)
    network = EmotionNetwork(NetworkSpec(model, CLASSES, **MODELS[model]))
    state = {PREFIX + name: tensor for name, tensor in network.state_dict().items()}
    write_checkpoint({SPEC_KEY: network.spec.to_dict(), "state_dict": state}, path)


def export_all(ckpt: Path) -> None:
    from fer.errors import UserError
    from fer.export.run import export
    from fer.settings.export import ExportSettings

    for precision in ("fp32", "int8"):
        try:
            with redirect_stdout(io.StringIO()):
                export(ExportSettings(ckpt=str(ckpt), precision=precision, data="synthetic", force=True))
        except UserError as error:
            console.print(f"left out: {error}", markup=False)


def report(ckpt: Path, threads: int, options: argparse.Namespace) -> None:
    batches = options.batches
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    workers = {}
    for way in dict.fromkeys(["torch fp32", *options.ways]):
        file = ckpt.with_name(ckpt.stem + WAYS[way])
        if way.startswith("torch.compile") and not compiler:
            console.print("torch.compile: left out, there is no C++ compiler")
        elif file.exists():
            workers[way] = Worker(way, file, threads)
    times: dict[tuple[str, int], list[float]] = {(way, batch): [] for way in workers for batch in batches}
    for _ in range(options.turns):
        for batch in batches:
            for way, worker in workers.items():
                times[way, batch] += worker.measure(batch)
    unit = "1 thread" if threads == 1 else f"{threads} threads"
    table = Table(title=f"{ckpt.stem}, {unit}: milliseconds, p50/p95, and how many times as fast as torch fp32",
                  title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))  # fmt: skip
    table.add_column("")
    for batch in batches:
        table.add_column("1 face" if batch == 1 else f"{batch} faces", justify="right")
        table.add_column("x", justify="right")
    table.add_column("MB in memory", justify="right")
    table.add_column("MB on disk", justify="right")
    for way, worker in workers.items():
        cells = []
        for batch in batches:
            median, high = np.percentile(times[way, batch], [50, 95])
            cells += [f"{median:.2f}/{high:.2f}", f"{np.median(times['torch fp32', batch]) / median:.1f}"]
        table.add_row(way, *cells, f"{worker.finish():.0f}", f"{size(ckpt.with_name(ckpt.stem + WAYS[way])):.1f}")
    console.print(table)


def size(file: Path) -> float:
    other = file.with_suffix(".bin")
    return (file.stat().st_size + (other.stat().st_size if file.suffix == ".xml" else 0)) / 1e6


class Worker:
    """A process that runs one file in one way, and measures when it is told to."""

    def __init__(self, way: str, file: Path, threads: int) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
        command = [sys.executable, __file__, "--job", way, str(file), str(threads)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def measure(self, batch: int) -> list[float]:
        milliseconds: list[float] = json.loads(self._ask(str(batch)))
        return milliseconds

    def finish(self) -> float:
        answer = float(self._ask("end"))
        self._process.wait()
        return answer

    def _ask(self, text: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(text, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()


def work(way: str, file: Path, threads: int) -> None:
    """Reads numbers of faces from standard input, and answers with the milliseconds of calls."""
    call = open_way(way, file, threads)
    seen = set()
    for line in sys.stdin:
        if line.strip() == "end":
            print(peak(), flush=True)
            return
        faces = np.random.default_rng(0).integers(0, 256, (int(line), 48, 48), np.uint8)
        if line not in seen:  # compiles, allocates
            for _ in range(5):
                call(faces)
            seen.add(line)
        milliseconds: list[float] = []
        end = time.perf_counter() + SECONDS
        while time.perf_counter() < end or len(milliseconds) < 3:
            start = time.perf_counter()
            call(faces)
            milliseconds.append(1000 * (time.perf_counter() - start))
        print(json.dumps(milliseconds), flush=True)


def peak() -> float:
    """Megabytes; unlike getrusage's, without what the parent had before this process began."""
    return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024  # type: ignore[union-attr]


def open_way(way: str, file: Path, threads: int) -> Callable[[np.ndarray], object]:
    from fer.inference.predictor import Predictor

    if way in ("torch bf16", "torch.compile fp32"):
        import torch

        from fer.checkpoint import load_network

        torch.set_num_threads(threads)
        network = load_network(file).to(memory_format=torch.channels_last)
        if way == "torch.compile fp32":
            network.compile(dynamic=False)  # a kernel per number of faces

        @torch.inference_mode()
        def call(faces: np.ndarray) -> object:
            with torch.autocast("cpu", torch.bfloat16, enabled=way == "torch bf16"):
                logits = network(torch.from_numpy(faces)[:, None])
            return torch.softmax(logits.float() / network.spec.temperature, dim=1).numpy()

        return call
    return Predictor.load(file, threads, device="cpu").probabilities


if __name__ == "__main__":
    main()
