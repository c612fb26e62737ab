"""`fer-summary`: the table of many runs."""

from collections.abc import Sequence

from fer.commands.frame import run
from fer.files import at_home
from fer.settings.base import help_lines
from fer.settings.tables import SummarySettings
from fer.settings.words import read

HELP = """\
The table of many runs: mean and deviation over seeds, and which differences are noise.

  fer-summary outputs/sweeps/NAME
  fer-summary outputs/ONE outputs/ANOTHER

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(SummarySettings)))
        return 0
    settings = read(SummarySettings, arguments, bare="runs")
    from fer.evaluation.summary import summarise

    summarise([at_home(path) for path in ([settings.runs] if isinstance(settings.runs, str) else settings.runs)])
    return 0


def command() -> None:
    """The entry of `fer-summary`."""
    run("summary")


if __name__ == "__main__":
    command()
