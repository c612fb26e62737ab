"""`fer-export`: a checkpoint as an ONNX file, checked against it."""

from collections.abc import Sequence

from fer.commands.frame import run
from fer.settings.base import help_lines
from fer.settings.export import ExportSettings
from fer.settings.words import read

HELP = """\
Write a checkpoint as a file that runs without torch, and check it against the checkpoint.

  fer-export ckpt=best.ckpt
  fer-export ckpt=best.ckpt precision=int8 data=data/fer2013.csv output=fer.onnx

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(ExportSettings)))
        return 0
    settings = read(ExportSettings, arguments)
    settings.refuse_contradictions()
    from fer.export.run import export

    export(settings)
    return 0


def command() -> None:
    """The entry of `fer-export`."""
    run("export")


if __name__ == "__main__":
    command()
