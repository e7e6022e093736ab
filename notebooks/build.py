"""Run the notebooks from top to bottom and store their outputs, cleaned: `make notebooks`.

    python notebooks/build.py                 all of them
    python notebooks/build.py 03 07           those whose names begin so

What differs from run to run without meaning anything (times of execution, the ids of widgets, the version of the
kernel) is taken out, so that running this again changes nothing but pictures of measurements, and the figures on the
cards of verdicts. A cell that fails stops it, and the notebook on disk stays as it was.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
CELL_SECONDS = 60
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def main(prefixes: list[str]) -> None:
    """Run and store the notebooks whose names begin with one of `prefixes`, or all."""
    paths = [path for path in sorted(HERE.glob("*.ipynb")) if not prefixes or path.name.startswith(tuple(prefixes))]
    if not paths:
        raise SystemExit(f"no notebook in {HERE.name}/ begins with {' or '.join(prefixes) or 'anything'}")
    for path in paths:
        began = time.monotonic()
        print(f"{path.name} ...", end=" ", flush=True)
        notebook = nbformat.read(path, as_version=4)
        run(notebook)
        clean(notebook)
        nbformat.write(notebook, path)
        print(f"{time.monotonic() - began:.0f} s")


def run(notebook: NotebookNode) -> None:
    """Execute every cell in a fresh kernel; raises `CellExecutionError` at the first that fails."""
    NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": str(HERE)}}).execute()


def clean(notebook: NotebookNode) -> None:
    """Take out what means nothing to a reader and changes from run to run."""
    notebook.metadata = nbformat.from_dict(METADATA)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags")
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.cell_type == "code":
            cell.outputs = [clean_output(output) for output in joined(cell.outputs)]


def clean_output(output: NotebookNode) -> NotebookNode:
    """Drop the ids of live widgets (their static form stays) and the metadata of outputs."""
    if "data" in output:
        output.data.pop(WIDGET_VIEW, None)
        output.metadata = nbformat.from_dict({})
    return output


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join what one stream printed in several pieces: where it was cut is chance."""
    whole: list[NotebookNode] = []
    for output in outputs:
        if whole and output.output_type == "stream" and whole[-1].get("name") == output.name:
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


if __name__ == "__main__":
    main(sys.argv[1:])
