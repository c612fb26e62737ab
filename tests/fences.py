"""What README.md and docs/ say in code: blocks, the commands in them, and the marks of those that are not run.

A block with `<!-- not run: REASON -->` in the line above it is left alone.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token
from tiny import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        page: file name.
        line: number of its first line in the page, from 1.
        language: what stands after the three backticks; of an indented block "".
        text: its lines.
        reason: why it is not run; None where it is.
    """

    page: str
    line: int
    language: str
    text: str
    reason: str | None

    @property
    def place(self) -> str:
        """Page and line."""
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[list[str]]:
        """The words of each command, without comments, and without variables that are set before it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [without_variables(words) for words in found if words]


def without_variables(words: list[str]) -> list[str]:
    """`A=1 command` as `command`."""
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def tokens(page: Path) -> list[Token]:
    """The page, as CommonMark with tables."""
    return MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8"))


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code of a page, in order."""
    above: Token | None = None
    for token in tokens(page):
        if token.type in ("fence", "code_block"):
            mark = re.fullmatch(r"<!-- not run: (.+) -->", above.content.strip()) if above is not None else None
            assert token.map is not None
            yield Block(page.name, token.map[0] + 1, token.info.strip(), token.content, mark and mark[1])
        above = token if token.type == "html_block" else None


def marks() -> list[str]:
    """Every block that is not run, and why."""
    return [f"{block.place}: {block.reason}" for page in PAGES for block in blocks(page) if block.reason is not None]


def in_text(page: Path) -> Iterator[tuple[int, str]]:
    """Code within the text of a page: line of its paragraph, and the code."""
    line = 1
    for token in tokens(page):
        if token.type == "inline":
            line = token.map[0] + 1 if token.map else line
            yield from ((line, child.content) for child in token.children or () if child.type == "code_inline")
