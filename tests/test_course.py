"""Each chapter of the course is whole, links its words, and is its notebook."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("jupytext")

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted((DOCS / "course").glob("0*.md"))
chapters = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def extension(name):
    """A Sphinx extension beside the pages."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(text):
    """Tags and code of each cell, read by a rule of its own."""
    for block in re.findall(r"^```\{code-cell\} ipython3\n(.*?)^```", text, re.M | re.S):
        head = re.match(r"(?:---\n.*?---\n|(?::\w+:.*\n)+)?", block, re.DOTALL)[0]
        yield head, block[len(head) :].strip()


def test_the_index_lists_nine_chapters_in_order():
    listed = re.findall(r"^(0\d-[\w-]+)$", (DOCS / "course" / "index.md").read_text(), re.M)
    assert listed == [page.stem for page in PAGES]
    assert [name[:2] for name in listed] == [f"0{number}" for number in range(1, 10)]


@chapters
def test_a_chapter_opens_with_aims_minutes_notebook_and_ends_with_what_next(page):
    text = page.read_text()
    opening = re.search(
        r":::\{admonition\} What you will be able to do\n(.*?)^:::", text, re.S | re.M
    )
    assert len(re.findall(r"^- ", opening[1], re.M)) == 3
    assert re.search(r"\*Minutes: \d+", opening[1])
    assert f"<_notebooks/{page.stem}.ipynb>" in opening[1]
    assert text.rsplit("\n## ", 1)[1].startswith("What next")
    assert 450 < len(re.sub(r"^```.*?^```", "", text, flags=re.M | re.S).split()) < 1000


@chapters
def test_a_chapter_states_its_seconds_of_computing_as_measured_and_at_most_five_minutes(page):
    stated = re.search(r"of which the computer takes (\d+) seconds\.", page.read_text())
    rows = json.loads((ROOT / "benchmarks" / "results" / "newcomer.json").read_text())["rows"]
    measured = [row["processor seconds"] for row in rows if row["step"] == page.stem]
    assert int(stated[1]) <= 300
    assert all(seconds / 2 <= int(stated[1]) for seconds in measured)  # on two cores


@chapters
def test_every_picture_says_in_words_what_it_shows(page):
    text = page.read_text()
    figures = re.findall(r":::\{figure\} (\S+)\n(.*)", text)
    drawn = [head for head, code in code_cells(text) if re.search(r"subplots\(", code)]
    assert figures or drawn
    for path, option in figures:
        assert (page.parent / path).exists()
        assert re.match(r":alt: .{30,}", option)
    assert all(re.search(r"alt: .{30,}", head) for head in drawn)


@chapters
def test_a_word_of_the_glossary_is_a_link_where_it_is_first_used(page):
    gates, text = extension("gates"), page.read_text()
    terms = gates.terms((DOCS / "glossary.md").read_text())
    assert gates.linked(text)
    assert gates.linked(text) <= terms
    assert gates.unlinked(text, terms) == []


@chapters
def test_a_notebook_installs_the_library_and_then_has_the_code_of_its_page(page):
    book = extension("notebooks").notebook(page)
    first, *code = [cell.source for cell in book.cells if cell.cell_type == "code"]
    assert "\n%pip install" in first
    assert "distillguard" in first
    assert code == [
        code for head, code in code_cells(page.read_text()) if "remove-cell" not in head
    ]


@chapters
def test_the_text_of_a_notebook_is_plain_markdown_with_its_pictures(page):
    book = extension("notebooks").notebook(page)
    text = [cell for cell in book.cells if cell.cell_type == "markdown"]
    for cell in text:
        assert not re.search(r"\{[a-z]+\}`|^:::|^```\{", cell.source, re.M), cell.source
        for name in re.findall(r"attachment:([^)]+)", cell.source):
            assert name in cell.attachments
    figures = re.findall(r":::\{figure\}", page.read_text())
    assert sum(len(cell.get("attachments", {})) for cell in text) == len(figures)
