"""A directory or archive, open, for the tests of what reads them."""

from pathlib import Path

from fer.data.container import Container, open_container


def opened(path: Path) -> Container:
    container = open_container(path)
    assert container is not None
    return container
