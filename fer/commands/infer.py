"""`python infer.py`, `fer-infer`: emotions in a camera's picture, in videos and in photos."""

import sys
from collections.abc import Sequence

from fer.commands.frame import complain, run
from fer.errors import EXIT_CODE
from fer.settings.base import as_yaml, help_lines
from fer.settings.infer import InferSettings
from fer.settings.words import read

HELP = """\
See emotions in a camera's picture, in videos and in photos.

An expression is seen, not a feeling: do not judge people by it. In the European Union inferring emotions at work and in
education is prohibited, except for medical or safety reasons (AI Act, Article 5(1)(f)).

  python infer.py                                    the first camera; q quits, h shows the keys
  python infer.py mode=webcam source=rtsp://camera/stream    a network camera
  python infer.py clip.mp4 output=out                annotated video, predictions, timeline, summary
  python infer.py photos output=out                  annotated copies of a folder's pictures
  python infer.py face.png detector=none             a picture that is a face crop already
  python infer.py mode=browser                       a page that shows the camera of whoever opens it

Every setting, with its default, what it does, and what it may be:

"""


def main(arguments: Sequence[str]) -> int:
    """The command; returns its exit code."""
    if {"-m", "--multirun"} & set(arguments):
        complain(["infer.py does one thing at a time, without -m; mode=image takes folders and globs of pictures"])
        return EXIT_CODE
    if {"-h", "--help"} & set(arguments):
        print(HELP + "\n".join(help_lines(InferSettings)))
        print("\n--cfg job shows the settings of a command without running it.")
        return 0
    words = list(arguments)
    shows = "--cfg" in words
    if shows:
        del words[words.index("--cfg") : words.index("--cfg") + 2]
    settings = read(InferSettings, words, bare="source")
    if shows:
        print(as_yaml(settings.plain()))
        return 0
    settings.refuse_contradictions()
    from fer.inference.run import run as watch
    from fer.inference.sources import guess_mode

    if settings.mode is None:
        settings = InferSettings.checked({**settings.plain(), "mode": guess_mode(settings.sources)})

    try:
        watch(settings)
    except KeyboardInterrupt:
        print("interrupted; what was written is whole up to here", file=sys.stderr)
        return 130
    return 0


def command() -> None:
    """The entry of `fer-infer`."""
    run("infer")


if __name__ == "__main__":
    command()
