"""Sphinx extension: what every page owes its reader; a page that does not have it is a warning.

`make docs` turns warnings into errors. The tests use the same rules.

- Every public name has its entry in the reference.
- A chapter of the course links a term of the glossary where it first uses it.
- Every picture has an alternative text, and every link within the site has a target.
- The search finds the words that a newcomer types.
"""

import contextlib
import importlib
import json
import re
from collections.abc import Collection, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

from sphinx.search.en import SearchEnglish
from sphinx.util import logging

# Terms that are also words of everyday English, or that the page at hand explains.
PLAIN = {
    "adversarial", "attack", "bounds", "box", "delta", "evaluation", "finding", "hair", "inputs",
    "labels", "model", "norm", "restarts", "search steps", "step size", "steps", "targeted",
    "transfer", "square", "white box", "teacher", "student", "detector", "distillation",
}  # fmt: skip
logger = logging.getLogger(__name__)


def setup(app: Any) -> dict[str, bool]:
    """Have sources, names and written pages looked at in each build."""
    app.add_config_value("gates_package", "distillguard", "")
    app.add_config_value("gates_searches", {}, "")
    app.connect("source-read", warn_of_terms)
    app.connect("env-check-consistency", warn_of_names)
    app.connect("build-finished", warn_of_pages)
    return {"parallel_read_safe": True}


def warn_of_terms(app: Any, docname: str, source: list[str]) -> None:
    """Warn of the terms that a chapter uses before it links them."""
    glossary = Path(app.srcdir) / "glossary.md"
    if docname.startswith("course/") and glossary.exists():
        for passage in unlinked(source[0], terms(glossary.read_text())):
            logger.warning("term used before it is linked: %s", passage, location=docname)


def warn_of_names(app: Any, env: Any) -> None:
    """Warn of the public names that no page documents."""
    for name in undocumented(app.config.gates_package, env.domaindata["py"]["objects"]):
        logger.warning("public name without a page: %s", name)


def warn_of_pages(app: Any, exception: Exception | None) -> None:
    """Warn of dead links, pictures without text and searches without an answer in the output."""
    if exception or app.builder.name != "html":
        return
    for fault in faults(Path(app.outdir), app.env.found_docs):
        logger.warning("%s", fault)
    for word, page in unfound(Path(app.outdir), app.config.gates_searches):
        logger.warning("the search does not find %s for %r", page, word)


def terms(glossary: str) -> set[str]:
    """Return the terms that a glossary defines, in lower case."""
    lines = re.findall(r"^(\w.*)\n    ", glossary, re.MULTILINE)
    return {term.strip().lower() for line in lines for term in line.split(", ")}


def prose(text: str) -> str:
    """Return what a reader reads: no code, figures, headings or formulas; links as written."""
    text = re.sub(r"\A---\n.*?^---\n", "", text, flags=re.M | re.S)
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    text = re.sub(r"^:::\{admonition.*?^:::$", "", text, flags=re.M | re.S)
    text = re.sub(r"^#.*$|^:(alt|width):.*$|^:::.*$", "", text, flags=re.M)
    text = re.sub(r"(\{term\}`[^`]*`)|(\{\w+\})?`[^`]*`", lambda found: found[1] or "", text)
    return re.sub(r"\s+", " ", re.sub(r"\]\([^)]*\)", "]", text)).strip()


def linked(text: str) -> set[str]:
    """Return the terms that a page links to, in lower case."""
    links = re.findall(r"\{term\}`([^`<]*?)(?: <([^>]*)>)?`", text)
    return {(target or word).lower() for word, target in links}


def unlinked(text: str, terms: Iterable[str]) -> list[str]:
    """Return, with the words around it, each term whose first use in a page is not a link."""
    text = prose(text)
    passages = []
    for term in sorted(set(terms) - PLAIN):
        first = re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", text, re.IGNORECASE)
        if first and not re.search(r"(\{term\}`|<)$", text[: first.start()]):
            passages.append(text[max(0, first.start() - 40) : first.end() + 40])
    return passages


def public_names(package: str) -> Iterator[tuple[str, object]]:
    """Every public name of a package and of its public modules, with what it stands for."""
    root = importlib.import_module(package)
    values = {name: getattr(root, name) for name in root.__all__}
    for space in [root, *values.values()]:
        if isinstance(space, ModuleType):
            for name in space.__all__:
                if not isinstance(value := getattr(space, name), ModuleType):
                    yield f"{space.__name__}.{name}", value


def undocumented(package: str, documented: Iterable[str]) -> list[str]:
    """Return the public names of what none of the documented names stands for."""
    known = {id(named(name)) for name in documented if name.partition(".")[0] == package}
    return [name for name, value in public_names(package) if id(value) not in known]


def named(name: str) -> object:
    """Return what a dotted name stands for; None for an attribute that only instances have."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with contextlib.suppress(ImportError):
            found: object = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                found = getattr(found, part, None)
            return found
    return None


class Page(HTMLParser):
    """Targets, links and the pictures' alternative texts of a written page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.targets: set[str] = set()
        self.links: list[str] = []
        self.pictures: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Note what an element is linked by, links to or shows."""
        named = dict(attributes)
        self.targets |= {named[key] or "" for key in ("id", "name") if key in named}
        if tag == "a" and named.get("href"):
            self.links.append(named["href"] or "")
        if tag == "img":
            self.pictures.append((named.get("src") or "", named.get("alt") or ""))


def faults(folder: Path, documents: Collection[str]) -> list[str]:
    """Return the dead links and the pictures without text in the pages of these documents.

    Pages of an earlier build that are no documents any more may lie beside them.
    """
    pages = {path: Page(path.read_text()) for path in sorted(folder.rglob("*.html"))}
    return [
        f"{path.relative_to(folder)}: {fault}"
        for path, page in pages.items()
        if str(path.relative_to(folder).with_suffix("")) in documents
        for fault in [
            *(f"picture without alternative text: {src[:60]}" for src in untold(page)),
            *(f"dead link: {link}" for link in page.links if dead(path, link, pages)),
        ]
    ]


def untold(page: Page) -> list[str]:
    """Return the pictures whose alternative text is missing or, as docutils fills it, a path."""
    return [src for src, text in page.pictures if len(text.split()) < 3]


def dead(path: Path, link: str, pages: dict[Path, Page]) -> bool:
    """Whether a link within the site leads to no file, or to no place in its page."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target in pages:
        return bool(parts.fragment) and unquote(parts.fragment) not in pages[target].targets
    return not target.exists()


def unfound(folder: Path, searches: dict[str, str]) -> list[tuple[str, str]]:
    """Return the words, and the page wanted for each, whose page the search does not offer."""
    script = (folder / "searchindex.js").read_text()
    index = json.loads(script.removeprefix("Search.setIndex(").rstrip(";\n").removesuffix(")"))
    return [(word, page) for word, page in searches.items() if page not in hits(index, word)]


def hits(index: dict[str, Any], word: str) -> set[str]:
    """Return the pages that have a word in their text or titles, as Sphinx's script finds them."""
    stem = SearchEnglish({}).stem(word.lower())
    numbers: set[int] = set()
    for table in ("terms", "titleterms"):
        found = index[table].get(stem, [])
        numbers |= {found} if isinstance(found, int) else set(found)
    return {index["docnames"][number] for number in numbers}
