"""`fer-search`: a search for settings with Optuna."""

import logging
import sys
from collections.abc import Sequence

from fer.commands.frame import run
from fer.errors import UserError
from fer.files import at_home
from fer.settings.base import help_lines
from fer.settings.compose import CONFIGS, checked, compose_line, take_apart
from fer.settings.tables import SearchSettings
from fer.settings.words import read

HELP = """\
Search for settings of train.py: Optuna proposes those that a file names, trains, and stops what falls behind.

  fer-search trials=40 model=net trainer.max_epochs=12
  fer-search space=mine.yaml trials=100

It sees validation accuracy only. The same command goes on where it was stopped or killed, and several of them, also on
several machines that share the directory, work at one study. Its own settings; all others are those of train.py:

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(SearchSettings)))
        return 0
    own = [word for word in arguments if word.partition("=")[0] in SearchSettings.model_fields]
    settings = read(SearchSettings, own)
    words = [word for word in arguments if word not in own]
    checked(line := take_apart(words), compose_line(line))
    if line.sweeping:
        raise UserError("-m: a search proposes the values itself, among those that space= names; leave it out")
    try:
        from fer.training import search
    except ModuleNotFoundError as error:
        raise UserError(f"the search needs {error.name}: pip install 'fer-lightning[optuna]'") from error

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    search.run(
        at_home(settings.space) if settings.space else CONFIGS / "search" / "recipe.yaml", words, settings.trials
    )
    return 0


def command() -> None:
    """The entry of `fer-search`."""
    run("search")


if __name__ == "__main__":
    command()
