"""Settings of train.py for a run of seconds, shared by the tests of commands and of runs, and where train.py is."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer.data.synthetic import make_faces
from fer.settings.compose import checked, compose_line, take_apart
from fer.settings.train import TrainSettings

ROOT = Path(__file__).parents[1]
TINY = [
    "data=synthetic",
    "data.synthetic.train=210",
    "data.synthetic.val=70",
    "data.synthetic.test=70",
    "data.batch_size=32",
    "model=net",
    "++model.kwargs.widths=[4,8,8,8]",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
]


VOTES = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
_COLUMN = {6: 0, 3: 1, 5: 2, 4: 3, 0: 4, 1: 5, 2: 6}  # of FER2013's codes in that header, after the name


def write_with_votes(directory: Path, train: int, val: int, test: int) -> list[str]:
    """faces.csv of drawn faces and votes.csv, where every tenth row is no face; returns the settings that name them."""
    faces = make_faces(train, val, test, seed=1)
    usages = ("Training", "PublicTest", "PrivateTest")
    lines, votes = ["emotion,pixels,Usage"], [VOTES]
    for row, (image, label, split) in enumerate(zip(faces.images, faces.labels, faces.splits, strict=True)):
        lines.append(f"{label},{' '.join(map(str, image.ravel().tolist()))},{usages[split]}")
        counts = [0] * 10
        counts[9 if row % 10 == 0 else _COLUMN[int(label)]] = 10
        votes.append(",".join([usages[split], f"{row}.png", *map(str, counts)]))
    (directory / "faces.csv").write_text("\n".join(lines) + "\n")
    (directory / "votes.csv").write_text("\n".join(votes) + "\n")
    return [f"data.path={directory / 'faces.csv'}", f"data.ferplus_path={directory / 'votes.csv'}"]


def settings_of(*words: str) -> TrainSettings:
    """What train.py makes of a command line."""
    line = take_apart(words)
    return checked(line, compose_line(line))


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: step and value by directory and name."""
    found = {}
    for directory in {file.parent for file in run.rglob("events.out.tfevents.*")}:
        events = EventAccumulator(str(directory), size_guidance={"scalars": 0}).Reload()
        for name in events.Tags()["scalars"]:
            points = [(event.step, event.value) for event in events.Scalars(name)]
            found[f"{directory.relative_to(run)}: {name}"] = points
    return found
