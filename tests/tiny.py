"""Settings of train.py for a run of seconds, shared by the tests of commands and of runs, and where train.py is."""

from pathlib import Path

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
