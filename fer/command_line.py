"""What every command does alike: reads KEY=VALUE, says what is wrong with it, and names what was probably meant.

Knows nothing of Hydra (see `fer.config`), torch or the settings themselves.
"""

import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def complain(found: Sequence[str]) -> None:
    """Prints mistakes to standard error, one per line."""
    print("\n".join(f"error: {text}" for text in found), file=sys.stderr)


def did_you_mean(word: str, words: Iterable[str], cutoff: float = 0.5) -> str:
    """The end of a sentence about an unknown `word`: "; did you mean NAME?", or nothing if no name is like it.

    Args:
        word: what was typed.
        words: what there is.
        cutoff: how alike they must be, see `difflib.get_close_matches`.
    """
    near = get_close_matches(word, list(words), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]}?" if near else ""


def read_settings(words: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The settings of a command line without Hydra, and what is wrong with the others, a sentence each.

    Args:
        words: each KEY=VALUE; an empty value or null leaves a setting out.
        names: the settings there are; of one with a dot, the part after it may stand for it.
    """
    known = {name.rpartition(".")[2]: name for name in names} | {name: name for name in names}
    given: dict[str, str] = {}
    found: list[str] = []
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            found.append(f"{word!r} cannot be read; a setting is KEY=VALUE, and --help lists them")
        elif key not in known:
            hint = did_you_mean(key, known) or f"; there is {', '.join(names)}"
            found.append(f"{key}: there is no such setting{hint}")
        elif value not in ("", "null"):
            given[known[key]] = value
    return given, found
