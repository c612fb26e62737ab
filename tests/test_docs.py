"""README.md and docs/: their commands, settings, lists and links, against the code.

Every command of a block marked as `bash` is checked, and one that nobody knows how to check fails, unless the line
above its block says `<!-- not run: REASON -->`; the end of the test run prints these marks. What a check is:

- `train.py`, `fer-train`, `fer-search`: the words are composed, every value of a sweep is tried, contradictions are
  looked for. Nothing is trained, and files that the words name need not exist.
- `infer.py`, `fer-export`, `fer-clean`, `fer-summary`, `fer-card`: the words become settings. Nothing is read.
- `make`: a dry run. `tensorboard`, `torchrun`: their own parsers take the words. `pip install`: the extras exist.
- `. .venv/bin/activate`: that is where make installs.
- a script of benchmarks/ or examples/: it exists, and its text has each option.
- Python is run, on small drawn files; TOML and YAML are parsed.

Really run are the commands of `REALLY`, and the notebook (tests/examples/test_quickstart.py). In indented blocks and in
running text only our own commands are looked at.
"""

import functools
import importlib.util
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest
import timm
import yaml
from fences import PAGES, Block, blocks, in_text, tokens
from test_imports import imports, modules, part
from tiny import ROOT

import fer
from fer.commands.infer import main as infer
from fer.data.synthetic import make_faces
from fer.models import OWN
from fer.settings.base import Settings, names_of
from fer.settings.compose import CONFIGS, checked, compose_line, sweep_parameters, take_apart
from fer.settings.export import ExportSettings
from fer.settings.infer import InferSettings
from fer.settings.tables import CardSettings, CleanSettings, SearchSettings, SummarySettings
from fer.settings.train import TrainSettings
from fer.settings.words import read
from fer.training.trainer import check_arguments

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
READ: dict[str, tuple[type[Settings], str | None]] = {
    "fer-infer": (InferSettings, "source"),
    "fer-export": (ExportSettings, None),
    "fer-clean": (CleanSettings, None),
    "fer-summary": (SummarySettings, "runs"),
    "fer-card": (CardSettings, "report"),
}
OURS = ("python train.py", "python infer.py", *PROJECT["project"]["scripts"])
REALLY = ["python infer.py clip.mp4 output=out", "python infer.py photos output=out"]


# --- commands ---------------------------------------------------------------------------------------------------------


def check(words: list[str]) -> None:
    """Fails, or raises the UserError that a person would see."""
    program, *rest = words
    if program == "python":
        program, *rest = rest
        program = {"train.py": "fer-train", "infer.py": "fer-infer"}.get(program, program)
    if program in ("fer-train", "fer-search"):
        own = [word for word in rest if word.partition("=")[0] in SearchSettings.model_fields]
        read(SearchSettings, own if program == "fer-search" else [])
        compose([word for word in rest if program == "fer-train" or word not in own])
    elif program in READ:
        cls, bare = READ[program]
        without_missing_files(read(cls, [word for word in rest if word != "--help"], bare))
    elif program == "make":
        done = subprocess.run(["make", "-n", *rest], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    elif program == "pip":
        extras = {name for word in rest for found in re.findall(r"\[(.+)\]", word) for name in found.split(",")}
        assert rest[0] == "install"
        assert extras <= set(PROJECT["project"]["optional-dependencies"])
    elif program == "tensorboard":
        from tensorboard.program import TensorBoard

        TensorBoard().configure(("tensorboard", *rest))
    elif program == ".":
        assert rest == [".venv/bin/activate"]
        assert "VENV := .venv\n" in (ROOT / "Makefile").read_text()
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        taken = get_args_parser().parse_args(rest)
        assert taken.training_script == "train.py"
        compose(taken.training_script_args)
    elif program == "sbatch":
        script = rest.index("examples/slurm.sh")
        compose(rest[script + 1 :])
    else:
        assert program.endswith(".py"), f"{program}: mark its block, <!-- not run: REASON -->"
        text = (ROOT / program).read_text()
        for option in rest:
            assert not option.startswith("--") or f'"{option.partition("=")[0]}"' in text, option


def compose(words: list[str]) -> None:
    """What train.py does with its words before it looks for files."""
    line = take_apart(words)
    composed = compose_line(line)
    if not line.sweeping and sweep_parameters(line):
        line.flags["multirun"] = ""
    settings = checked(line, composed)
    check_arguments(settings.trainer)
    without_missing_files(settings)
    name = settings.model.name
    assert name in OWN or ":" in name or timm.is_model(name)


def without_missing_files(settings: Settings) -> None:
    assert [text for text in settings.contradictions() if "does not exist" not in text] == []


@functools.cache
def commands() -> dict[str, list[str]]:
    """Words of every command that is checked, each once, by itself."""
    return {shlex.join(words): words for words in _commands()}


def _commands() -> Iterator[list[str]]:
    for page in PAGES:
        for block in blocks(page):
            if block.reason is None and block.language == "bash":
                yield from block.commands
            elif block.reason is None and block.language == "":
                for line in block.text.replace("\\\n", " ").splitlines():
                    command = re.split(r"\s{3,}", line.strip())[0]  # what it does stands beside it
                    if command.startswith(OURS):
                        yield shlex.split(command, comments=True)
        for _, code in in_text(page):
            if code.startswith(tuple(f"{name} " for name in OURS)) and "..." not in code:
                yield shlex.split(code)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder but for the settings of one's own that docs/extending.md shows; no screen."""
    monkeypatch.chdir(tmp_path)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    (own,) = [block for block in blocks(ROOT / "docs" / "extending.md") if block.language == "yaml"]
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "small.yaml").write_text(own.text)
    return tmp_path


@pytest.fixture
def pictures(elsewhere: Path) -> None:
    """What the pages name: photo.jpg, a.jpg, b.jpg, a folder photos, clip.mp4."""
    face = cv2.resize(make_faces(1, 0, 0, seed=0).images[0], (240, 240), interpolation=cv2.INTER_CUBIC)
    picture = cv2.cvtColor(cv2.copyMakeBorder(face, 60, 60, 60, 60, cv2.BORDER_REPLICATE), cv2.COLOR_GRAY2BGR)
    (elsewhere / "photos").mkdir()
    for name in ("photo.jpg", "a.jpg", "b.jpg", "photos/1.jpg", "photos/2.jpg"):
        cv2.imwrite(name, picture)
    writer = cv2.VideoWriter("clip.mp4", cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 30, (360, 360))
    for _ in range(6):
        writer.write(picture)
    writer.release()


@pytest.mark.filterwarnings("ignore:html5lib:DeprecationWarning")  # TensorBoard's own
@pytest.mark.parametrize("command", commands())
def test_a_command_is_taken(elsewhere: Path, command: str) -> None:
    check(commands()[command])


@pytest.mark.parametrize("command", REALLY)
def test_commands_that_are_really_run(elsewhere: Path, pictures: None, command: str) -> None:
    assert command in commands()
    assert infer(shlex.split(command)[2:]) == 0
    assert (elsewhere / "out" / "predictions.jsonl").is_file()


def python_blocks() -> list[Block]:
    return [block for page in PAGES for block in blocks(page) if block.language == "python" and block.reason is None]


@pytest.mark.parametrize("block", python_blocks(), ids=lambda block: block.place)
def test_python_runs(pictures: None, monkeypatch: pytest.MonkeyPatch, block: Block) -> None:
    if importlib.util.find_spec("pandas") is None:  # only its class of tables is used
        monkeypatch.setitem(sys.modules, "pandas", types.SimpleNamespace(DataFrame=list))
    exec(compile(block.text, block.place, "exec"), {"__name__": "page"})


def test_every_block_has_a_language_that_is_checked_or_a_reason() -> None:
    checked_ones = {"bash", "python", "toml", "yaml", "text", "mermaid", ""}
    found = [block for page in PAGES for block in blocks(page)]
    assert [block.place for block in found if block.language not in checked_ones and block.reason is None] == []
    for block in found:
        if block.language == "toml":
            assert tomllib.loads(block.text)
        elif block.language == "yaml":
            assert yaml.safe_load(block.text)


def test_an_unknown_program_needs_a_mark() -> None:
    with pytest.raises(AssertionError, match="mark its block"):
        check(["docker", "run"])


# --- settings ---------------------------------------------------------------------------------------------------------

CLASSES: list[type[Settings]] = [TrainSettings, InferSettings, SearchSettings, *(cls for cls, _ in READ.values())]
NAMES = {name for cls in CLASSES for name in names_of(cls)} | {path.name for path in CONFIGS.iterdir() if path.is_dir()}
NAMES.add("still")  # of the page's WebSocket (docs/browser.md)
FREE = ("hydra", "trainer", "logger", "callbacks", "model.kwargs", "optim.optimizer")  # what is in them is not ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_the_text_exist(page: Path) -> None:
    unknown = []
    for line, code in in_text(page):
        for word in code.split() if "(" not in code.replace("range(", "") else []:  # else it is Python
            setting = re.fullmatch(r"'?([a-z_]+(?:[./][a-z_]+)*)=.*", word)
            dotted = re.fullmatch(r"(?:data|model|optim|distil|detector)\.[a-z0-9_.]+", word)
            name = setting[1] if setting else dotted[0] if dotted else None
            if name is not None and name not in NAMES and not name.startswith(FREE):
                unknown.append(f"{page.name}:{line}: {word}")
    assert unknown == []


# --- lists ------------------------------------------------------------------------------------------------------------


def lists() -> Iterator[tuple[str, set[str]]]:
    """What each `<!-- all of FOLDER -->` speaks of, and the names in the first column of the table below it."""
    for page in PAGES:
        folder = None
        column = 0
        for token in tokens(page):
            if token.type == "html_block" and (mark := re.fullmatch(r"<!-- all of (.+) -->", token.content.strip())):
                folder, names = mark[1], set()
            elif token.type == "tr_open":
                column = 0
            elif token.type == "td_open":
                column += 1
            elif token.type == "inline" and folder is not None and column == 1:  # of a row: headings have none
                names |= {child.content for child in token.children or () if child.type == "code_inline"}
            elif token.type == "table_close" and folder is not None:
                yield folder, names
                folder = None


def test_tables_that_name_files_name_all() -> None:
    found = list(lists())
    assert {folder for folder, _ in found} >= {"configs/experiment", "configs/model", "configs/optim", "fer/weights"}
    for folder, names in found:
        endings = (".ckpt",) if folder == "fer/weights" else (".yaml",)
        assert names == {path.stem for path in (ROOT / folder).iterdir() if path.suffix in endings}, folder


HOUSE = ROOT / "docs" / "how-it-works.md"


def test_the_tree_names_everything_in_the_package() -> None:
    (tree,) = [block for block in blocks(HOUSE) if block.language == "text"]
    lines = tree.text.splitlines()
    start = lines.index("fer/")
    named = {
        name
        for line in lines[start + 1 :]
        if line.startswith("  ") and line[2] != " "
        for name in re.split(r"\s{2,}", line.strip())[0].split(" ")
    }
    there = {path.name + "/" if path.is_dir() else path.name for path in (ROOT / "fer").iterdir()}
    assert named == there - {"__init__.py", "__pycache__/", "py.typed"}
    tops = {line.split("  ")[0].rstrip() for line in lines if line[0] != " "}
    assert all((ROOT / name).exists() for top in tops for name in top.split()), tops


def test_nothing_strays_into_the_top_folder() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no clone: what is tracked cannot be told from what lies about")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    usual = {".ci", ".gitignore", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md"}
    own = {
        "train.py",
        "infer.py",
        "pyproject.toml",
        "configs",
        "fer",
        "tests",
        "outputs",
        "benchmarks",
        "docs",
        "examples",
    }
    assert {name.partition("/")[0] for name in listed.splitlines()} == usual | own


def test_the_picture_of_the_house_shows_the_imports() -> None:
    (picture,) = [block for block in blocks(HOUSE) if block.language == "mermaid"]
    rooms = {name: label.split() for name, label in re.findall(r'^ *(\w+)\["(.+)"\]$', picture.text, re.MULTILINE)}
    room = {part: name for name, parts in rooms.items() for part in parts}
    drawn = set(re.findall(r"^ *(\w+) --> (\w+)$", picture.text, re.MULTILINE))
    seen = {
        (room[part(file)], room[name.split(".")[1]])
        for file in modules()
        if part(file) != "__init__"
        for name in imports(file, nested=part(file) != "settings")  # there, a suggestion after a mistake
        if name.startswith("fer.") and name.split(".")[1] in room
    }
    edges = {(above, below) for above, below in seen if above != below}
    assert drawn <= edges
    while joined := {(a, d) for a, b in drawn for c, d in drawn if b == c} - drawn:
        drawn |= joined
    assert edges <= drawn
    assert set(room) == {part(file) for file in modules()} - {"__init__"}


# --- links, lengths, versions -----------------------------------------------------------------------------------------


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    found = tokens(page)
    return {slug(found[i + 1].content) for i, token in enumerate(found) if token.type == "heading_open"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [
        str(child.attrs.get("href") or child.attrs.get("src"))
        for token in tokens(page)
        for child in token.children or ()
        if child.type in ("link_open", "image")
    ]
    for link in [*links, *re.findall(r'<img src="([^"]+)"', text)]:
        path, _, anchor = link.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_pages_that_the_code_names_exist() -> None:
    files = [
        path
        for folder in ("fer", "configs", "benchmarks", "examples", "tests")
        for path in (ROOT / folder).rglob("*.*")
    ]
    for path in [*files, ROOT / "CONTRIBUTING.md"]:  # the changelog may name a page that is gone
        if path.suffix in (".py", ".yaml", ".md", ".sh"):
            for name in re.findall(r"docs/([a-z-]+\.(?:md|png))", path.read_text()):
                assert (ROOT / "docs" / name).is_file(), f"{path}: docs/{name}"


def test_readme_is_short_and_leads_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert [page.name for page in PAGES[1:] if f"docs/{page.name}" not in text] == []


def test_versions_agree() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == fer.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == fer.__version__
    for page in PAGES:
        for version in re.findall(r"fer_lightning-([\d.]+)-", page.read_text()):
            assert version == fer.__version__, page.name
