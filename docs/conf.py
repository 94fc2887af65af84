"""Sphinx's settings. The build needs no network: see INTERSPHINX below."""

import os
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.ext.autosummary import Autosummary
from sphinx.util import logging

import distillguard

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))  # for the extensions beside this file

project = "distillguard"
author = "The distillguard developers"
copyright = author
version = release = distillguard.__version__

extensions = [
    "myst_nb",
    "notebooks",
    "exercise_page",
    "gates",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
source_suffix = {".rst": "restructuredtext", ".md": "myst-nb"}
exclude_patterns = ["_build", "course/_notebooks"]
templates_path = ["_templates"]

nitpicky = True
# Names of other projects are links where INTERSPHINX=1 fetches their inventories, else text.
nitpick_ignore_regex = [
    (r"py:.*", rf"{package}(\..*)?")
    for package in (
        "collections",
        "functools",
        "matplotlib",
        "numpy",
        "pathlib",
        "sklearn",
        "torch",
    )
]
if os.environ.get("INTERSPHINX"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "sklearn": ("https://scikit-learn.org/stable", None),
        "torch": ("https://docs.pytorch.org/docs/stable", None),
    }

autodoc_preserve_defaults = True
autodoc_typehints = "none"  # the docstrings say more: shapes, ranges, units
autosummary_imported_members = True
# All pages by name: a page that is new since the last build would get no stubs otherwise.
autosummary_generate = sorted(
    str(page.relative_to(_HERE))
    for page in _HERE.rglob("*.md")
    if not {"_build", "generated"} & set(page.parts)
)
# The picture of each display's page, of those that pictures.py draws, and what it shows.
PICTURES = {
    "AdversarialExamplesDisplay": (
        "fooled-digits",
        "Three digits, their adversarial examples, and the differences between them.",
    ),
    "AttackTraceDisplay": (
        "attack-traces",
        "Examples that stand against forward passes, one curve for each of two attacks.",
    ),
    "ComparisonDisplay": (
        "comparison",
        "Accuracies with their intervals: attacks in rows, two networks in columns.",
    ),
    "HistogramDisplay": (
        "histogram",
        "Examples by the probability of their predicted class, as bars with intervals.",
    ),
    "LossDisplay": ("scaling-study", "Loss against training FLOPs: nine runs and the fitted law."),
    "LossSurfaceDisplay": (
        "loss-surfaces",
        "Around one example the cross-entropy is flat and the margin rises to a boundary.",
    ),
    "RobustnessCurveDisplay": (
        "curves",
        "Robust accuracy against epsilon, with bands, for an undefended and a distilled network.",
    ),
    "SizeDisplay": (
        "sizes",
        "Best numbers of parameters and training examples against training FLOPs: straight lines.",
    ),
    "TransferMatrixDisplay": (
        "transfer",
        "How many adversarial examples made on one network fool each of two.",
    ),
}
autosummary_context = {"pictures": PICTURES}
toc_object_entries_show_parents = "hide"
numpydoc_class_members_toctree = False
numpydoc_show_class_members = False  # the class template has the methods in full

# Chapters of the course run in kernels of their own, which import the library documented here.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(distillguard.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
).rstrip(os.pathsep)
os.environ["MATPLOTLIBRC"] = str(_HERE / "course" / "matplotlibrc")
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # tqdm's, without ipywidgets
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300  # seconds for a cell
nb_execution_excludepatterns = ["_notebooks/*"]
nb_merge_streams = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "pydata_sphinx_theme"
html_title = "distillguard"
html_static_path = ["_static"]
html_css_files = ["distillguard.css"]
html_search_scorer = str(Path(__file__).with_name("search_scorer.js"))
html_math_renderer = "mathml"
html_domain_indices = False  # the reference lists the modules
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {page: [] for page in ("index", "exercises", "museum", "changelog", "glossary")}
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_toc_level": 2,
    "footer_start": ["last-updated"],
    "footer_end": [],
}

# What a newcomer types, and a page that the search has to offer for it.
gates_searches = {
    "tutorial": "course/index",
    "exercise": "exercises",
    "temperature": "course/01-soft-labels",
    "cw": "howto/which-attack",
    "epsilon": "howto/which-attack",
}

logger = logging.getLogger(__name__)


def setup(app: Sphinx) -> None:
    """Formulas as MathML, which browsers show without a script; summaries without citations."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.add_directive("autosummary", Summary, override=True)


class Summary(Autosummary):
    """A table of names; the citation that ends many a first line has no place in it."""

    def get_items(self, names: list[str]) -> list[tuple[str, str | None, str, str]]:
        """Return name, signature, summary and full name of each."""
        items = super().get_items(names)
        return [(n, s, re.sub(r"\s*\[R\w+-\d+\]_", "", text), full) for n, s, text, full in items]


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    translator.body.append(mathml(node, as_block=False))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own; a wide one scrolls by itself."""
    translator.body.append(f'<div class="formula">{mathml(node, as_block=True)}</div>')
    raise nodes.SkipNode


def mathml(node: nodes.Element, as_block: bool) -> str:
    """Translate a node's TeX; what docutils cannot translate is a warning, hence an error."""
    tex = node.astext().replace(r"\dots", r"\ldots")
    # TeX puts a thin space after a function's name, MathML does not.
    tex = re.sub(r"\\(log|exp|tanh)\s*(?=[a-zA-Z\\])(?!\\(left|[bB]ig))", r"\\\1\\,", tex)
    try:
        return tex2mathml(tex, as_block=as_block)
    except MathError as error:
        logger.warning("formula %r: %s", node.astext(), error, location=node)
        return ""
