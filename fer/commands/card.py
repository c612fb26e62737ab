"""`fer-card`: the model card of a network, from the numbers of its report."""

import json
from collections.abc import Sequence

from fer import rundir
from fer.commands.frame import run
from fer.errors import UserError
from fer.files import at_home, is_dir, write_whole
from fer.settings.base import help_lines
from fer.settings.tables import CardSettings
from fer.settings.words import read

HELP = """\
Write a model card in the form of the Hugging Face hub from a report's numbers.

  fer-card outputs/RUN
  fer-card outputs/RUN output=card.md

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(CardSettings)))
        return 0
    settings = read(CardSettings, arguments, bare="report")
    path = at_home(settings.report)
    numbers = path / rundir.METRICS if is_dir(path) else path
    try:
        metrics = json.loads(rundir.text(numbers))
    except (OSError, ValueError) as error:
        raise UserError(f"{numbers} is no report's {rundir.METRICS}: give the directory of a finished run") from error
    from fer.evaluation.card import card

    output = at_home(settings.output) if settings.output else numbers.with_name("README.md")
    try:
        write_whole(output, card(metrics).encode())
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{numbers} lacks {error}: it is no report of this version; make it again by mode=test"
        ) from error
    print(f"Written: {output}")
    return 0


def command() -> None:
    """The entry of `fer-card`."""
    run("card")


if __name__ == "__main__":
    command()
