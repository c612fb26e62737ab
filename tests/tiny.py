"""Settings of train.py for a run of seconds, shared by the tests of commands and of runs, and where train.py is."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

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
