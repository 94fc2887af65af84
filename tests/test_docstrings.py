"""Docstrings say what signatures say, have numpydoc's form, and their sections are complete."""

import ast
import doctest
import importlib
import inspect
import re
import tempfile
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from numpydoc.docscrape import FunctionDoc, NumpyDocString
from numpydoc.validate import validate

import distillguard

DOCS = Path(distillguard.__file__).parents[2] / "docs"
NAMESPACES = [
    name for name in distillguard.__all__ if isinstance(getattr(distillguard, name), ModuleType)
]


def public_objects() -> dict[str, object]:
    """Every public function and class, by the name under which users import it."""
    found = {}
    for space in NAMESPACES:
        module = importlib.import_module(f"distillguard.{space}")
        found |= {f"distillguard.{space}.{name}": getattr(module, name) for name in module.__all__}
    known = set(map(id, found.values()))
    for name in distillguard.__all__:
        value = getattr(distillguard, name)
        if id(value) not in known and not isinstance(value, ModuleType):
            found[f"distillguard.{name}"] = value
    return found


def callables() -> dict[str, object]:
    """Public functions, classes and the public methods that distillguard itself defines."""
    found = {}
    for path, value in public_objects().items():
        if not callable(value) or (inspect.isclass(value) and issubclass(value, Exception)):
            continue
        found[path] = value
        if inspect.isclass(value):
            for name, method in inspect.getmembers(value, inspect.isfunction):
                inherits = method.__doc__ is None and inspect.getdoc(method)
                ours = method.__module__.startswith("distillguard") and not inherits
                if ours and not name.startswith("_"):
                    found[f"{path}.{name}"] = method
    return found


CALLABLES = callables()
FUNCTIONS = {path: value for path, value in CALLABLES.items() if inspect.isfunction(value)}

# Codes of numpydoc.validate. Left out are the ones that contradict the house style: a summary on
# the line of the quotes (GL01), lower-case continuations of a type (PR08), no extended summary
# (ES01), See Also and Examples for every trifle (SA01, EX01), and "Returns the x" (SS05).
CODES = {
    "GL03", "GL05", "GL06", "GL07", "GL08", "GL09", "GL10",
    "SS01", "SS02", "SS03", "SS04", "SS06",
    "PR01", "PR02", "PR03", "PR04", "PR05", "PR06", "PR07", "PR09", "PR10",
    "RT01", "RT03", "RT04", "RT05",
    "SA02", "SA03", "SA04",
}  # fmt: skip


def describes_each_field(cls):
    """Whether a text follows every field of a data class."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    followed = [
        isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        for field, after in pairwise([*body, None])
        if isinstance(field, ast.AnnAssign)
    ]
    return bool(followed) and all(followed)


@pytest.mark.parametrize("path", CALLABLES)
def test_numpydoc_finds_nothing_to_object_to(path):
    errors = [error for error in validate(path)["errors"] if error[0] in CODES]
    if inspect.isclass(CALLABLES[path]):
        # A data class describes its fields under Attributes, or each where it stands.
        has_attributes = NumpyDocString(inspect.getdoc(CALLABLES[path]))["Attributes"]
        described = has_attributes or describes_each_field(CALLABLES[path])
        errors = [error for error in errors if not (described and error[0] == "PR01")]
    assert not errors


@pytest.mark.parametrize("path", CALLABLES)
def test_documented_parameters_are_the_signatures_in_order(path):
    value = CALLABLES[path]
    if inspect.isclass(value) and describes_each_field(value):
        return  # where they stand
    document = NumpyDocString(inspect.getdoc(value))
    section = document["Parameters"] or (inspect.isclass(value) and document["Attributes"]) or []
    documented = [name.strip() for entry in section for name in entry.name.split(",")]
    signature = inspect.signature(value).parameters
    expected = [
        {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(each.kind.name, "") + name
        for name, each in signature.items()
        if name != "self"
    ]
    assert documented == expected


@pytest.mark.parametrize("path", CALLABLES)
def test_documented_defaults_are_the_signatures(path):
    value = CALLABLES[path]
    signature = inspect.signature(value).parameters
    for entry in NumpyDocString(inspect.getdoc(value))["Parameters"]:
        default = signature[entry.name.lstrip("*")].default
        stated = re.search(r"default=(.+)$", entry.type)
        if default is inspect.Parameter.empty:
            assert not stated, entry.name
            assert "optional" not in entry.type, entry.name
        elif stated:
            fraction = re.fullmatch(r"(\d+)/(\d+)", stated[1])
            if fraction:
                assert int(fraction[1]) / int(fraction[2]) == default, entry.name
                continue
            assert stated[1].replace("nn.", "") == shown(default), entry.name
        else:
            # Long tuples are described in prose, as None is.
            assert default is None or isinstance(default, tuple), entry.name
            assert "optional" in entry.type, entry.name


def shown(default: object) -> str:
    if inspect.isclass(default) or inspect.isfunction(default):
        return default.__name__
    return repr(default).replace("'", '"')


@pytest.mark.parametrize("path", [path for path in FUNCTIONS if ".attacks." in path])
def test_an_attack_has_raises_references_and_an_example(path):
    document = FunctionDoc(FUNCTIONS[path])
    assert document["Raises"]
    assert re.search(r"https://(arxiv|doi)\.org/", "\n".join(document["References"]))
    assert ">>> " in "\n".join(document["Examples"])


@pytest.mark.parametrize(
    "path", [path for path, value in public_objects().items() if inspect.isfunction(value)]
)
def test_a_public_function_has_an_example_and_its_errors(path):
    document = FunctionDoc(FUNCTIONS[path])
    assert ">>> " in "\n".join(document["Examples"])
    body = inspect.getsource(FUNCTIONS[path]).partition('"""')[2].rpartition('"""')[2]
    if re.search(r"\bcheck_\w+\(|\braise ", body):
        assert document["Raises"]


BLOCKS = [
    page
    for page in sorted(DOCS.rglob("howto/*.md"))
    if "```python\n" in page.read_text() and "\n>>> " not in page.read_text()
]


@pytest.mark.parametrize("page", BLOCKS, ids=lambda page: page.name)
def test_code_on_how_to_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    exec(compile("\n".join(blocks), page.name, "exec"), {"__name__": page.stem})


def test_the_whole_report_on_its_page_is_what_the_code_above_it_prints():
    text = (DOCS / "howto" / "evaluation.md").read_text()
    names: dict = {}
    exec(re.search(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1], names)
    shown = re.search(r"^```text\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[1]
    # Digits differ by machine; words, rows and findings do not.
    shown, printed = (
        re.sub(r"\s+", " ", re.sub(r"-{9,}|\d[\d.,+a-z]*", "#", each)).strip()
        for each in (shown, str(names["report"]))
    )
    assert shown == printed


PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "\n>>> " in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_on_documentation_pages_run(page):
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    # A code block's closing fence would be read as output.
    text = page.read_text().replace("\n```\n", "\n\n")
    examples = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert doctest.DocTestRunner(optionflags=flags, verbose=False).run(examples).failed == 0
