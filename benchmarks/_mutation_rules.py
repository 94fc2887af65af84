"""Faults by rule: where a source file can be wrong by one small exchange, and how.

Every rule is a function of one node of the syntax tree; it yields the pieces of text to exchange.
Annotations, docstrings, strings, assertions, the text of messages and what only a type checker
reads are left alone.
"""

import ast
import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parents[1] / "src" / "distillguard"


class Fault(NamedTuple):
    """One exchange by rule."""

    file: str
    function: str
    """Where it is, as in a traceback: ``Class.method``; empty outside of functions."""
    rule: str
    start: int
    """Offset of the exchanged text in the file."""
    old: str
    new: str
    nth: int
    """Which of equal exchanges by the same rule in the same function, from 1."""

    @property
    def name(self) -> str:
        """What identifies the fault, as long as its function keeps the text."""
        place = f"{self.file} {self.function or 'top'}"
        often = f" ({self.nth})" if self.nth > 1 else ""
        return f"{place}: {self.rule}: {_short(self.old)} -> {_short(self.new)}{often}"

    def apply(self, sources: Path) -> None:
        """Make the exchange in a copy of the package."""
        path = sources / self.file
        text = path.read_text()
        path.write_text(text[: self.start] + self.new + text[self.start + len(self.old) :])

    @property
    def room(self) -> str:
        """The folder, by which samples are stratified."""
        return str(Path(self.file).parent)


class Piece(NamedTuple):
    """A text to exchange."""

    start: int
    end: int
    new: str


class Source:
    """A file and the offsets of its nodes."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.tree = ast.parse(text)
        lines = text.splitlines(keepends=True)
        self._starts = [0]
        for line in lines:
            self._starts.append(self._starts[-1] + len(line))
        self._lines = [line.encode() for line in lines]

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Offsets of a node's first character and of the one after its last."""
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno, node.end_col_offset),
        )

    def of(self, node: ast.AST) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.text[start:end]

    def whole(self, node: ast.AST, new: str) -> Piece:
        """All of a node exchanged."""
        return Piece(*self.span(node), new)

    def between(self, left: ast.AST, right: ast.AST, word: str, new: str) -> Piece | None:
        """An operator exchanged that stands between two nodes."""
        start, end = self.span(left)[1], self.span(right)[0]
        pattern = r"\s+".join(map(re.escape, word.split()))
        found = re.search(pattern, self.text[start:end])
        return found and Piece(start + found.start(), start + found.end(), new)

    def line(self, offset: int) -> int:
        """Number of the line, from 1, in which a character stands."""
        return self.text.count("\n", 0, offset) + 1

    def _offset(self, line: int, column: int) -> int:
        return self._starts[line - 1] + len(self._lines[line - 1][:column].decode())


Rule = Callable[[ast.AST, ast.AST, Source], Iterator[Piece | None]]
"""From a node, its parent and the source to pieces of text."""

COMPARISONS = {
    ast.Lt: ("<", "<="), ast.LtE: ("<=", "<"), ast.Gt: (">", ">="), ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="), ast.NotEq: ("!=", "=="), ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"), ast.In: ("in", "not in"), ast.NotIn: ("not in", "in"),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "*"), ast.Pow: ("**", "*"),
    ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
PAIRS = [
    ("amax", "amin"), ("max", "min"), ("sum", "mean"), ("all", "any"), ("argmax", "argmin"),
    ("maximum", "minimum"), ("cummax", "cummin"), ("floor", "ceil"), ("zeros_like", "ones_like"),
    ("zeros", "ones"), ("new_zeros", "new_ones"), ("logical_and", "logical_or"),
    ("nanmin", "nanmax"), ("cumsum", "cumprod"), ("softmax", "log_softmax"),
    ("fmin", "fmax"), ("prod", "sum"), ("median", "mean"), ("log", "log1p"), ("exp", "expm1"),
]  # fmt: skip
REDUCTIONS = {new: old for old, new in reversed(PAIRS)} | dict(PAIRS)
BOUNDS = {
    "clamp", "clip", "clamp_", "clamp_min", "clamp_max", "nan_to_num", "abs", "detach", "round",
    "masked_fill", "sqrt", "relu", "clone",
}  # fmt: skip
CARELESS = {"strict", "stacklevel", "encoding", "help", "metavar", "label", "title", "desc"}
"""Keywords that change no figure: guards of our own loops, and text."""


def comparison(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange ``<`` and ``<=``, ``==`` and ``!=``, ``is`` and ``is not``, ``in`` and its like."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        for left, operator, right in zip(sides, node.ops, sides[1:], strict=False):
            yield source.between(left, right, *COMPARISONS[type(operator)])


def arithmetic(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange ``+`` and ``-``, ``*`` and ``/``, ``&`` and ``|``, also where they assign."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        texts = (ast.JoinedStr, ast.List, ast.Tuple, ast.Dict, ast.Set)
        sides = (node.left, node.right)
        if not any(isinstance(each, texts) or _is_text(each) for each in sides):
            yield source.between(*sides, *ARITHMETIC[type(node.op)])
    if isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
        old, new = ARITHMETIC[type(node.op)]
        yield source.between(node.target, node.value, f"{old}=", f"{new}=")


def sign(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop ``-``, ``not`` or ``~``."""
    if isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield source.whole(node, source.of(node.operand))


def constant(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Move a number up or down; exchange True and False."""
    value = node.value if isinstance(node, ast.Constant) else None
    if isinstance(value, bool):
        yield source.whole(node, str(not value))
    elif isinstance(value, int):
        # A hundred and one is as good as a hundred; twice as many is not.
        yield source.whole(node, str(2 * value if value > 16 else value + 1))
        if value > 0:
            yield source.whole(node, str(value // 2 if value > 16 else value - 1))
    elif isinstance(value, float) and math.isfinite(value):
        yield source.whole(node, repr(2 * value or 1.0))
        yield source.whole(node, repr(value / 2 or -1.0))


def junction(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange ``and`` and ``or``."""
    if isinstance(node, ast.BoolOp):
        words = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            yield source.between(left, right, *words)


def negation(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Negate the condition of an ``if``, a ``while``, a choice or a comprehension."""
    tests = [node.test] if isinstance(node, ast.If | ast.While | ast.IfExp) else []
    tests += node.ifs if isinstance(node, ast.comprehension) else []
    for test in tests:
        if not isinstance(test, ast.UnaryOp):
            yield source.whole(test, f"(not ({source.of(test)}))")


def reduction(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange amax and amin, sum and mean, all and any, and other pairs of functions."""
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and called.attr in REDUCTIONS:
        end = source.span(called)[1]
        yield Piece(end - len(called.attr), end, REDUCTIONS[called.attr])
    if isinstance(called, ast.Name) and called.id in {"min", "max", "any", "all"}:
        yield source.whole(called, REDUCTIONS[called.id])


def branches(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange the two sides of a ``where`` or a ``select``."""
    if isinstance(node, ast.Call) and _called(node) in {"where", "select"} and len(node.args) == 3:
        condition, yes, no = map(source.of, node.args)
        start, end = source.span(node.args[0])[0], source.span(node.args[2])[1]
        yield Piece(start, end, f"{condition}, {no}, {yes}")


def bound(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop a clamp, an absolute value, a rounding, a mask, a copy."""
    if isinstance(node, ast.Call) and _called(node) in BOUNDS:
        owner = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(owner, ast.Name) and owner.id in {"torch", "np", "math", "functional", "F"}:
            owner = node.args[0] if node.args else None
        if owner is not None:
            yield source.whole(node, source.of(owner))


def keyword(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop a keyword argument, so that the default holds."""
    if isinstance(node, ast.Call):
        arguments = sorted([*node.args, *node.keywords], key=source.span)
        for index, each in enumerate(arguments):
            if isinstance(each, ast.keyword) and each.arg and each.arg not in CARELESS:
                start, end = source.span(each)
                if index > 0:
                    start = source.span(arguments[index - 1])[1]
                elif len(arguments) > 1:
                    end = source.span(arguments[1])[0]
                yield Piece(start, end, "")


def call(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop a call made for its effect."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield source.whole(node, "pass")


def ending(node: ast.AST, parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop a return, continue, break or raise that a condition guards."""
    ends = (ast.Return, ast.Continue, ast.Break, ast.Raise)
    if isinstance(node, ends) and isinstance(parent, ast.If | ast.ExceptHandler):
        yield source.whole(node, "pass")


def returned(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Exchange the parts of a pair; negate a condition."""
    value = node.value if isinstance(node, ast.Return) else None
    if isinstance(value, ast.Tuple) and len(value.elts) == 2:
        left, right = value.elts
        yield Piece(source.span(left)[0], source.span(right)[1],
                    f"{source.of(right)}, {source.of(left)}")  # fmt: skip
    if isinstance(value, ast.Compare | ast.BoolOp):
        yield source.whole(value, f"not ({source.of(value)})")


def context(node: ast.AST, _parent: ast.AST, source: Source) -> Iterator[Piece | None]:
    """Drop a context, such as no_grad, that nobody names."""
    if isinstance(node, ast.With) and all(each.optional_vars is None for each in node.items):
        start, end = source.span(node)[0], source.span(node.items[-1].context_expr)[1]
        yield Piece(start, source.text.index(":", end), "if True")


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (comparison, arithmetic, sign, constant, junction, negation, reduction, branches,
                 bound, keyword, call, ending, returned, context)
}  # fmt: skip


@cache
def source_of(file: str) -> Source:
    """A file of the package, read once."""
    return Source(file, (SOURCES / file).read_text())


def files() -> list[str]:
    """All source files, from the package's folder."""
    paths = sorted(SOURCES.rglob("*.py"))
    return [path.relative_to(SOURCES).as_posix() for path in paths if path.name != "_version.py"]


def faults_in(source: Source) -> list[Fault]:
    """All faults by rule in one file."""
    found = []
    seen: Counter[tuple[str, ...]] = Counter()
    for node, parent, function in _walk(source.tree, source.tree, ""):
        for name, rule in RULES.items():
            for piece in rule(node, parent, source):
                if piece is None:
                    continue
                old = source.text[piece.start : piece.end]
                key = (function, name, _short(old), _short(piece.new))
                seen[key] += 1
                fault = Fault(source.file, function, name, piece.start, old, piece.new, seen[key])
                found.append(fault)
    return found


def sample(number: int, seed: int = 0) -> list[Fault]:
    """Faults from every folder, about as many as the root of how many it has, rules by turns.

    A fault's rank among those of its folder and rule is drawn from its name: an edit elsewhere
    does not draw others.
    """
    rooms: dict[str, dict[str, list[Fault]]] = defaultdict(lambda: defaultdict(list))
    for file in files():
        for fault in faults_in(source_of(file)):
            rooms[fault.room][fault.rule].append(fault)
    sizes = {room: sum(map(len, rules.values())) for room, rules in rooms.items()}
    whole = sum(math.sqrt(size) for size in sizes.values())
    chosen = []
    for room, rules in rooms.items():
        share = min(sizes[room], math.ceil(number * math.sqrt(sizes[room]) / whole))
        turns = [
            (place, rule, fault)
            for rule, faults in rules.items()
            for place, fault in enumerate(sorted(faults, key=lambda each: _rank(each, seed)))
        ]
        turns.sort(key=lambda turn: (turn[0], _rank(turn[2], seed)))
        valid = (fault for _, _, fault in turns if compiles(fault, source_of(fault.file)))
        chosen += [fault for fault, _ in zip(valid, range(share), strict=False)]
    return chosen


def compiles(fault: Fault, source: Source) -> bool:
    """Whether the harmed file is Python, and another program than before."""
    end = fault.start + len(fault.old)
    try:
        harmed = ast.parse(source.text[: fault.start] + fault.new + source.text[end:])
    except SyntaxError:
        return False
    return ast.dump(harmed) != ast.dump(source.tree)


def _walk(node: ast.AST, parent: ast.AST, function: str) -> Iterator[tuple[ast.AST, ast.AST, str]]:
    """Every node in which a fault can matter, its parent and the function it is in."""
    if function or not isinstance(node, ast.BinOp) or not isinstance(node.op, ast.BitOr):
        yield node, parent, function
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    for child in _relevant(node):
        yield from _walk(child, node, function)


def _relevant(node: ast.AST) -> Iterator[ast.AST]:
    """The children of a node, less text, annotations and what is read by type checkers alone."""
    match node:
        case ast.Raise() | ast.Assert() | ast.JoinedStr():
            return
        case ast.Call() if _called(node) in {"warn", "cast", "overload", "TypeVar", "print"}:
            return
        case ast.keyword(arg=name) if name in CARELESS:
            return
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            yield from node.orelse
        case ast.AnnAssign():
            yield from [node.value] if node.value else []
        case ast.Assign(targets=[ast.Name(id="__all__")]):
            return
        case ast.FunctionDef():
            yield from [*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body]
        case ast.ClassDef():
            yield from node.body
        case ast.arg():
            return
        case _:
            yield from ast.iter_child_nodes(node)


def _called(node: ast.Call) -> str:
    """The last word of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _short(text: str) -> str:
    """A piece of text on one line, and not a long one."""
    line = " ".join(text.split()) or "nothing"
    return line if len(line) <= 60 else f"{line[:57]}..."


def _rank(fault: Fault, seed: int) -> str:
    return hashlib.sha256(f"{seed} {fault.name}".encode()).hexdigest()
