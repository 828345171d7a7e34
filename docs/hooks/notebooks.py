"""Notebooks are run when the site is built, and shown with their outputs; a cell that fails fails the build.

They become pages like the others, in Markdown, and need no style sheets or scripts of their own.
"""

import base64
import os
import tempfile
from functools import cache
from pathlib import PurePosixPath
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from traitlets.config import Config

TIMEOUT = 600  # seconds, for a cell

_texts: dict[str, str] = {}
"""The Markdown of each notebook, by its place in docs/."""


class NotebookFile(File):
    """A notebook that is a page."""

    def is_documentation_page(self) -> bool:
        """Whether MkDocs makes a page of it."""
        return True


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Run every notebook, and add its figures, and the notebook itself to be downloaded."""
    for file in [file for file in files if file.src_uri.endswith(".ipynb")]:
        source, stem = file.content_string, PurePosixPath(file.src_uri).stem
        _texts[file.src_uri], figures = _converted(source, stem)
        folder = PurePosixPath(file.src_uri).parent / stem
        for name, content in [*figures.items(), (f"{stem}.ipynb", source.encode())]:
            files.append(File.generated(config, f"{folder}/{name}", content=content))
        files.remove(file)
        files.append(NotebookFile(file.src_uri, file.src_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(*, page: Page, config: MkDocsConfig) -> str | None:
    """The Markdown of a notebook; None of other pages, which MkDocs reads."""
    del config
    return _texts.get(page.file.src_uri)


@cache  # `mkdocs serve` builds at every change
def _converted(source: str, stem: str) -> tuple[str, dict[str, bytes]]:
    """The Markdown of a notebook after it was run, and the figures that it shows."""
    figures: dict[str, bytes] = {}
    download = f"This page is a notebook, run when the site was built: [download it]({stem}/{stem}.ipynb).\n"
    parts: list[str] = []
    for cell in _run(source).cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code":
            parts += [_fenced("python", cell.source), *_outputs(cell, stem, figures)]
    return "\n\n".join([parts[0], download, *parts[1:]]), figures


def _run(source: str) -> Any:
    notebook = nbformat.reads(source, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        # Sockets in the folder, where a system has such, and not ports that others could connect to.
        sockets = {"transport": "ipc", "ip": f"{folder}/kernel"} if os.name == "posix" else {}
        client = NotebookClient(
            notebook,
            config=Config(KernelManager=sockets),
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            shutdown_kernel="immediate",
            timeout=TIMEOUT,
        )
        return client.execute(env={**os.environ, "IPYTHONDIR": folder})


def _outputs(cell: Any, stem: str, figures: dict[str, bytes]) -> list[str]:
    """What a cell printed and drew, in turn."""
    parts = []
    for output in cell.outputs:
        data = output.get("data", {})
        if output.output_type == "stream":
            parts.append(_fenced("{ .text .output }", output.text))
        elif "image/png" in data:
            name = f"figure-{len(figures) + 1}.png"
            figures[name] = base64.b64decode(data["image/png"])
            parts.append(f"![{cell.metadata.get('alt', '')}]({stem}/{name})")
        elif "text/plain" in data:
            parts.append(_fenced("{ .text .output }", data["text/plain"]))
    return parts


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
