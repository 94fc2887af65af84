"""Sphinx extension: a notebook beside each page of the course, with the page's own code.

The pages are MyST notebooks, executed in the build. Their text has roles and directives that only
Sphinx reads; here these become plain Markdown. The notebooks lie in course/_notebooks while Sphinx
reads the pages, whose `{download}` roles copy them into the output.
"""

import base64
import re
from pathlib import Path
from typing import Any

import jupytext
import nbformat

HERE = Path(__file__).parent
COURSE = HERE / "course"
FOLDER = "_notebooks"
INSTALL = """# distillguard is on no package index yet: give the path of its repository or wheel.
%pip install --quiet "../distillguard[demo]\""""


def setup(app: Any) -> dict[str, bool]:
    """Have the notebooks written before the pages are read."""
    app.connect("builder-inited", lambda app: write_all())
    return {"parallel_read_safe": True}


def chapters() -> list[Path]:
    """Pages of the course, in order."""
    return sorted(COURSE.glob("0*.md"))


def write_all() -> None:
    """Write each chapter's notebook where its page links to it."""
    folder = COURSE / FOLDER
    folder.mkdir(exist_ok=True)
    for page in chapters():
        (folder / f"{page.stem}.ipynb").write_text(nbformat.writes(notebook(page)) + "\n")


def notebook(page: Path) -> nbformat.NotebookNode:
    """A page as a notebook: its first cell installs the library, hidden checks are left out."""
    read = jupytext.reads(page.read_text(), fmt="md:myst")
    cells = [cell for cell in read.cells if "remove-cell" not in cell.metadata.get("tags", [])]
    for cell in cells:
        cell.metadata = nbformat.NotebookNode()
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source)
            embed_pictures(cell)
    install = nbformat.v4.new_code_cell(INSTALL)
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = nbformat.v4.new_notebook(cells=[install, *cells], metadata=kernel)
    for number, cell in enumerate(made.cells):
        cell.id = f"{page.stem[:2]}-{number}"
    return made


def plain(text: str) -> str:
    """Markdown that any notebook shows: no roles, no directives, no labels."""
    text = re.sub(r"^\([\w-]+\)=\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^.*\{download\}.*\n?", "", text, flags=re.MULTILINE)
    text = re.sub(r"```\{math\}\n(.*?)```", r"$$\n\1$$", text, flags=re.DOTALL)
    text = re.sub(r":::\{admonition\} (.*)\n(?::.*\n)*((?:.*\n)*?):::", r"**\1**\n\2", text)
    text = re.sub(
        r":::\{figure\} (.*)\n:alt: (.*)\n(?::.*\n)*\n((?:.*\n)*?):::", r"![\2](\1)\n\n\3", text
    )
    text = re.sub(r"\{math\}`([^`]*)`", r"$\1$", text)
    text = re.sub(r"\{(?:term|doc|ref)\}`([^`<]*?)(?:\s*<[^`]*>)?`", r"\1", text)
    text = re.sub(r"\{(?:func|class|meth|mod)\}`~?([^`]*)`", r"`\1`", text)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)


def embed_pictures(cell: nbformat.NotebookNode) -> None:
    """Put the page's picture files into the cell."""
    for name in re.findall(r"!\[[^\]]*\]\(([^):]+\.svg)\)", cell.source):
        content = base64.b64encode((COURSE / name).resolve().read_bytes()).decode()
        file = Path(name).name
        cell.setdefault("attachments", {})[file] = {"image/svg+xml": content}
        cell.source = cell.source.replace(f"({name})", f"(attachment:{file})")
