"""`fer-clean`: which rows of a data set are doubtful, and why."""

from collections.abc import Sequence

from fer.commands.frame import run
from fer.settings.base import help_lines
from fer.settings.tables import CleanSettings
from fer.settings.words import read

HELP = """\
List the doubtful rows of a data set: blank pictures, copies, wrong labels. The data are not changed.

  fer-clean data.path=data/fer2013.csv
  fer-clean data.path=data/fer2013.csv data.ferplus_path=data/fer2013new.csv
  fer-clean data.path=data/fer2013.csv predictions=outputs/sweeps/FOLDS
  python train.py data.exclude=outputs/.../cleaning.csv          and there the list goes

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(CleanSettings)))
        return 0
    settings = read(CleanSettings, arguments)
    from fer.cleaning.clean import clean

    clean(settings)
    return 0


def command() -> None:
    """The entry of `fer-clean`."""
    run("clean")


if __name__ == "__main__":
    command()
