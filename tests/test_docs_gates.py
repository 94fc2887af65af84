"""The build of the documentation refuses what a page owes its reader and does not have."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")

DOCS = Path(__file__).parents[1] / "docs"
CONF = f"""
import sys
sys.path[:0] = [{str(DOCS)!r}, __file__.removesuffix("conf.py")]
extensions = ["gates", "myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
gates_package = "toy"
gates_searches = {{"tutorial": "index", "temperature": "course/one", "cw": "index"}}
"""
SITE = {
    "conf.py": CONF,
    "toy.py": '''"""A package."""

__all__ = ["known"]


def known():
    """Return nothing."""
''',
    "index.md": """
# A site, a tutorial

```{toctree}
glossary
course/one
```

![A drawing of dots](dots.svg) and [a part](course/one.md#the-end), for cw.

```{eval-rst}
.. autofunction:: toy.known
```
""",
    "glossary.md": "# Words\n\n```{glossary}\nsoft labels\n    Labels, but soft.\n```\n",
    "course/one.md": """
# The temperature

Of {term}`soft labels`. Soft labels are soft, `soft labels` are code.

## The end
""",
    "dots.svg": "<svg xmlns='http://www.w3.org/2000/svg'/>",
}


def build(folder, changed):
    """Build the site with some text replaced; return the exit status and the warnings."""
    for name, text in SITE.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_text(text)
    for name, old, new in changed:
        assert old in SITE[name]
        (folder / "in" / name).write_text(SITE[name].replace(old, new))
    run = subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "in", "out"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return run.returncode, run.stderr


def test_a_sound_site_is_built(tmp_path):
    assert build(tmp_path, []) == (0, "")


def test_a_page_left_by_an_earlier_build_is_no_fault(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "gone.html").write_text('<a href="nowhere.html">x</a><img src="a.png">')
    assert build(tmp_path, []) == (0, "")


@pytest.mark.parametrize(
    ("changed", "warning"),
    [
        (("toy.py", '"known"]', '"known", "build"]\nbuild = 3'), "without a page: toy.build"),
        (("course/one.md", "{term}`soft labels`", "soft labels"), "before it is linked: Of soft"),
        (("index.md", "[A drawing of dots]", "[]"), "without alternative text: _images/dots.svg"),
        (("index.md", "[a part](course/one.md#the-end)", '<a href="glossary.html#z">x</a>'),
         "index.html: dead link: glossary.html#z"),
        (("index.md", "for cw", "for all"), "does not find index for 'cw'"),
    ],
    ids=["name", "term", "picture", "link", "search"],
)  # fmt: skip
def test_the_build_fails_and_says_where(changed, warning, tmp_path):
    status, warnings = build(tmp_path, [changed])
    assert status == 1
    assert warning in warnings
    assert warnings.count("WARNING") == 1
