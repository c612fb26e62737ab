"""How long until the faces are there: the first start, which parses the CSV, and the second, which finds the cache.

    python benchmarks/reading.py                 a CSV of 35,887 drawn rows in FER2013's form, removed afterwards
    python benchmarks/reading.py fer2013.csv     the real one

The first start is set against torchvision.datasets.FER2013 on the same file. Its MD5 check is switched off, because
drawn rows cannot pass it; that spares torchvision the time of one hash. Ours hashes the file twice and writes the cache
within the time that is measured. Each measurement is a fresh process with the file in the system's cache; the second
start is the median of five.

The same rows are then read as 48x48 PNG files in class folders, by torchvision.datasets.ImageFolder with Grayscale in
one process and by us with an empty cache, and as parquet (with pyarrow). Imports are not counted, on either side.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from fer.labels import EMOTIONS

ROWS = {"Training": 28709, "PublicTest": 3589, "PrivateTest": 3589}

TORCHVISION = """
import json, resource, time
import torchvision.datasets.fer2013 as module
module.check_integrity = lambda *_args, **_kwargs: True
start = time.perf_counter()
count = sum(len(module.FER2013(ROOT, split)) for split in ("train", "test"))
seconds = time.perf_counter() - start
print(json.dumps({"rows": count, "read": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

IMAGE_FOLDER = """
import json, resource, time
import numpy as np
from torchvision.datasets import ImageFolder
from torchvision.transforms import Grayscale
start, cpu = time.perf_counter(), time.process_time()
data = ImageFolder(ROOT, Grayscale())
faces = np.stack([np.asarray(data[row][0]) for row in range(len(data))])
seconds = time.perf_counter() - start
print(json.dumps({"rows": len(faces), "read": seconds, "cpu": time.process_time() - cpu,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

PICTURES = """
import json, resource, time
import cv2, pyarrow.parquet
from fer.data.reader import read
start, cpu = time.perf_counter(), time.process_time()
faces = read(ROOT)
seconds = time.perf_counter() - start
print(json.dumps({"rows": len(faces), "read": seconds, "cpu": time.process_time() - cpu,
                  "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

OURS = """
import json, resource, time
start = time.perf_counter()
from fer.data.reader import read
imported = time.perf_counter()
faces = read(CSV)
done = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import torch
torch_imported = time.perf_counter()
batch = torch.from_numpy(faces.images[:128]).unsqueeze(1)
end = time.perf_counter()
assert batch.shape == (128, 1, 48, 48)
print(json.dumps({"rows": len(faces), "import": imported - start, "read": done - imported,
                  "torch": torch_imported - done, "batch": end - torch_imported, "peak": peak}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", nargs="?", type=Path, help="FER2013's CSV; without it, rows are drawn")
    given = parser.parse_args().csv
    with tempfile.TemporaryDirectory() as folder:
        csv = Path(folder) / "fer2013" / "fer2013.csv"  # where torchvision looks for it
        csv.parent.mkdir()
        if given:
            shutil.copyfile(given, csv)
        else:
            write_csv(csv)
        os.environ["FER_CACHE"] = str(Path(folder) / "cache")
        theirs = measure(TORCHVISION, ROOT=folder)
        first = measure(OURS, CSV=str(csv))
        seconds = [measure(OURS, CSV=str(csv)) for _ in range(5)]
        second = {name: median(run[name] for run in seconds) for name in first}
        assert theirs["rows"] == first["rows"] == second["rows"]
        size = csv.stat().st_size / 1e6
        pictures, parquet = write_pictures(csv, Path(folder) / "pictures")
        forms = {"ImageFolder, Grayscale": measure(IMAGE_FOLDER, ROOT=str(pictures))}
        forms["read(), class folders"] = measure(PICTURES, ROOT=str(pictures))
        forms["read(), parquet"] = measure(PICTURES, ROOT=str(parquet))

    table = Table(title=f"{first['rows']:,} rows, {size:.0f} MB of text{'' if given else ', drawn'}")
    table.add_column("")
    for column in ("seconds", "ratio", "peak memory"):
        table.add_column(column, justify="right")
    speed = theirs["read"] / first["read"]
    table.add_row(
        "torchvision.datasets.FER2013, both splits", f"{theirs['read']:.2f}", "1.0", f"{theirs['peak']:.0f} MB"
    )
    table.add_row(
        "first start: read()", f"{first['read']:.2f}", f"{speed:.1f} times as fast", f"{first['peak']:.0f} MB"
    )
    table.add_section()
    total = median(run["import"] + run["read"] + run["batch"] for run in seconds)
    table.add_row("second start, to the first batch of 128", f"{total:.2f}", "", f"{second['peak']:.0f} MB")
    table.add_row("  import fer.data.reader (with NumPy)", f"{second['import']:.2f}", "", "")
    table.add_row("  read(), from the cache", f"{second['read']:.2f}", "", "")
    table.add_row("  128 faces as a tensor", f"{second['batch']:.4f}", "", "")
    table.add_row("  not counted: import torch", f"{second['torch']:.2f}", "", "")
    Console(width=100).print(table)

    table = Table(title=f"{first['rows']:,} PNG pictures, empty cache")
    table.add_column("")
    for column in ("seconds", "of them the processor's", "share of the first", "peak memory"):
        table.add_column(column, justify="right")
    whole = next(iter(forms.values()))["read"]
    for name, run in forms.items():
        assert run["rows"] == first["rows"]
        share, peak = f"{run['read'] / whole:.0%}", f"{run['peak']:.0f} MB"
        table.add_row(name, f"{run['read']:.2f}", f"{run['cpu']:.2f}", share, peak)
    Console(width=100).print(table)


def measure(code: str, **constants: str) -> dict[str, float]:
    """What `code` prints, in a Python of its own."""
    setting = "".join(f"{name} = {value!r}\n" for name, value in constants.items())
    done = subprocess.run([sys.executable, "-c", setting + code], check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def write_pictures(csv: Path, top: Path) -> tuple[Path, Path]:
    """The rows of a CSV as PNG files in class folders, without their split, and as one parquet file."""
    import pyarrow
    import pyarrow.parquet

    from fer.data.csv_file import read_csv

    with csv.open("rb") as stream:
        faces = read_csv(stream, str(csv))
    names = [EMOTIONS[label] for label in faces.labels]
    contents = []
    for row, (image, name) in enumerate(zip(faces.images, names, strict=True)):
        folder = top / "folders" / name
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{row}.png")
        contents.append((folder / f"{row}.png").read_bytes())
    path = top / "faces.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"image": contents, "label": names}), path)
    return top / "folders", path


def write_csv(path: Path) -> None:
    """Noise of FER2013's mean and spread, so that numbers of one, two and three digits are about as frequent."""
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for usage, count in ROWS.items():
            for _ in range(count):
                pixels = rng.normal(129, 65, 48 * 48).clip(0, 255).astype(int)
                file.write(f"{rng.integers(7)},{' '.join(map(str, pixels.tolist()))},{usage}\n")


if __name__ == "__main__":
    main()
