"""The notebook of examples/, executed as a reader does."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from tiny import ROOT

NOTEBOOK = ROOT / "examples" / "quickstart.ipynb"


# Of the client's own event loop, and of the kernel's imports.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert len(notebook.cells) == 10
    assert all(not cell.get("outputs") for cell in notebook.cells)  # none are committed: they would be large
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [output.data for cell in code for output in cell.outputs if output.output_type == "display_data"]
    assert len([data for data in shown if "image/png" in data]) == 2  # the others are tables of the training
    answers = "".join(output.text for output in code[-1].outputs if output.output_type == "stream")
    assert "outputs/quickstart/checkpoints/best.ckpt: " in answers
    assert "senet_7: " in answers
    assert (tmp_path / "outputs" / "quickstart" / "report.html").is_file()
