"""Hinton et al. 2015, section 3: a large teacher makes a small student better.

python -m benchmarks.papers.hinton [--data mnist5k] [--seeds 3] [--full]
"""

from functools import partial
from typing import TYPE_CHECKING

from benchmarks.papers import _teaching
from benchmarks.papers._claim import Claim, Row, Rows, check, comparison, main, mean, values
from benchmarks.papers._figures import axes, line
from benchmarks.papers._lab import CLASSES, Lab

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTHS = (800, 30)
TEMPERATURES = (1.0, 2.5, 4.0, 8.0, 20.0)
WEIGHTS = (0.1, 0.5, 0.9)
HOT = 20.0
OMISSIONS: dict[str, tuple[int, ...]] = {
    "without 3": (3,),
    "7 and 8 only": (0, 1, 2, 3, 4, 5, 6, 9),
}
"""Classes that the student never sees."""


def units(lab: Lab) -> list[Row]:
    """The teacher, students by width, temperature and hard-label weight, and the omissions."""
    found: list[Row] = [{"model": "teacher", "temperature": 1.0, "weight": 1.0}]
    for width in WIDTHS:
        hard = {"model": f"2 x {width}", "temperature": 1.0, "weight": 1.0}
        soft = [hard | {"temperature": T, "weight": 0.0} for T in TEMPERATURES]
        found += [hard, *soft]
    mixed = {"model": f"2 x {WIDTHS[0]}", "temperature": HOT}
    found += [mixed | {"weight": weight} for weight in WEIGHTS]
    return found + [{"model": name, "temperature": HOT, "weight": 0.0} for name in OMISSIONS]


def measure(lab: Lab, seed: int, model: str, temperature: float, weight: float) -> Row:
    """Percent of the test images that a network gets wrong."""
    weights = partial(_teaching.teacher_state, lab, seed)
    teacher = _teaching.large(tuple(lab.test[0].shape[1:]), CLASSES)
    teacher.load_state_dict(lab.remembered(f"hinton-teacher-{seed}", weights))
    teacher.eval().to(lab.device)
    if model == "teacher":
        return {"errors": _teaching.percent_wrong(teacher, lab.test)}
    omitted = OMISSIONS.get(model, ())
    width = WIDTHS[0] if omitted else int(model.removeprefix("2 x "))
    student = _teaching.trained_student(lab, seed, width, teacher, temperature, weight, omitted)
    row = {"errors": _teaching.percent_wrong(student, lab.test)}
    return row | _teaching.corrected(student, lab, omitted) if omitted else row


def _of(rows: Rows, model: str, temperature: float = 1.0, weight: float = 1.0) -> list[float]:
    return values(rows, "errors", model=model, temperature=temperature, weight=weight)


def checks(rows: Rows) -> list[Row]:
    """Every distilled student beats every student trained on hard labels, over all seeds."""
    small = f"2 x {WIDTHS[0]}"
    hard, soft = _of(rows, small), _of(rows, small, HOT, 0.0)
    gap = min(hard) - max(soft) if hard and soft else None
    return [
        check(
            "error of the best hard-label student minus that of the worst distilled one, points",
            gap,
            ">",
            0,
        )
    ]


def comparisons(rows: Rows, column: str) -> list[Row]:
    """The paper's figures in percent of its 10,000 test images."""
    small, tiny = (f"2 x {width}" for width in WIDTHS)
    mnist = column == "mnist"
    paper = {"teacher": 0.67, "hard": 1.46, HOT: 0.74} if mnist else {}
    hard, soft = _of(rows, small), _of(rows, small, HOT, 0.0)
    found = [
        comparison("errors, teacher", paper.get("teacher"), _of(rows, "teacher"), "%"),
        comparison(f"errors, {small}, hard labels", paper.get("hard"), hard, "%"),
    ]
    found += [
        comparison(f"errors, {small}, T = {T:g}", paper.get(T), _of(rows, small, T, 0.0), "%")
        for T in TEMPERATURES
    ]
    ratio = [s / h for s, h in zip(soft, hard, strict=False) if h]
    found.append(
        comparison("errors, T = 20 relative to hard labels", 0.507 if mnist else None, ratio)
    )
    found += [
        comparison(
            f"errors, {small}, T = {HOT:g}, hard-label weight {w:g}",
            None,
            _of(rows, small, HOT, w),
            "%",
        )
        for w in WEIGHTS
    ]
    found.append(comparison(f"errors, {tiny}, hard labels", None, _of(rows, tiny), "%"))
    found += [
        comparison(f"errors, {tiny}, T = {T:g}", None, _of(rows, tiny, T, 0.0), "%")
        for T in TEMPERATURES
    ]
    return found + (_omissions(rows) if mnist else [])


def _omissions(rows: Rows) -> list[Row]:
    paper = {
        ("without 3", "errors"): 2.06,
        ("without 3", "errors_of_unseen"): 13.2,
        ("without 3", "bias_by_test"): 3.5,
        ("without 3", "corrected_errors_by_test"): 1.09,
        ("without 3", "corrected_errors_of_unseen_by_test"): 1.4,
        ("7 and 8 only", "errors"): 47.3,
        ("7 and 8 only", "bias_by_test"): -7.6,
        ("7 and 8 only", "corrected_errors_by_test"): 13.2,
    }
    words = {
        "errors": "errors",
        "errors_of_unseen": "errors on the unseen classes",
    }
    for key, by in (("", "training"), ("_by_test", "test")):
        words[f"bias{key}"] = f"bias shift chosen on the {by} images"
        words[f"corrected_errors{key}"] = "errors after this shift"
        words[f"corrected_errors_of_unseen{key}"] = "errors on the unseen classes after this shift"
    return [
        comparison(
            f"transfer set {name}: {text}",
            paper.get((name, key)),
            values(rows, key, model=name),
            "" if key.startswith("bias") else "%",
        )
        for name in OMISSIONS
        for key, text in words.items()
    ]


def draw(rows: Rows, column: str) -> "Figure":
    """Errors by temperature, by hard-label weight, and with omitted classes."""
    figure, (above, middle, below) = axes(3)
    for place, width in enumerate(WIDTHS):
        name, colour = f"2 x {width}", f"C{place}"
        found = [_of(rows, name, T, 0.0) for T in TEMPERATURES]
        line(above, TEMPERATURES, found, color=colour, label=f"{name}, soft labels")
        level = mean(_of(rows, name))
        if level is not None:
            above.axhline(level, color=colour, linestyle="--", label=f"{name}, hard labels")
    level = mean(_of(rows, "teacher"))
    if level is not None:
        above.axhline(level, color="C7", linestyle=":", label="teacher, 2 x 1200")
    above.set(xlabel="temperature", ylabel="test errors (%)", xscale="log", ylim=(0, None))
    above.set_xticks(TEMPERATURES, [f"{T:g}" for T in TEMPERATURES])
    above.minorticks_off()
    above.legend(fontsize=9, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))

    weights = (0.0, *WEIGHTS, 1.0)
    small = f"2 x {WIDTHS[0]}"
    found = [_of(rows, small, 1.0 if w == 1 else HOT, w) for w in weights]
    line(middle, weights, found)
    middle.set(xlabel="weight of the hard labels, T = 20", ylabel="test errors (%)", ylim=(0, None))

    bars = [("errors", "as trained"), ("corrected_errors", "after the bias shift")]
    for place, (key, label) in enumerate(bars):
        heights = [mean(values(rows, key, model=name)) or 0.0 for name in OMISSIONS]
        places = [p + 0.4 * place - 0.2 for p in range(len(heights))]
        below.bar(places, heights, 0.4, label=label)
        for at, height in zip(places, heights, strict=True):
            below.text(at, height, f"{height:.1f}", ha="center", va="bottom")
    below.set_xticks(range(len(OMISSIONS)), OMISSIONS)
    below.set(xlabel="transfer set", ylabel="test errors (%)")
    below.margins(y=0.15)
    below.legend()
    return figure


CLAIM = Claim(
    name="hinton",
    title="A large teacher makes a small student better",
    text="""
Distillation was invented to compress networks. Hinton et al. 2015 (section 3) train a large network
on MNIST with dropout and jittered images; it makes 67 errors on 10,000 test images. A small network
trained without either makes 146 errors, but only 74 if it learns the large network's softmax at
T = 20 instead of the labels. A student that never saw a 3 still recognises most of them (98.6 %
after its bias for class 3 is corrected), and one that saw only 7s and 8s classifies 86.8 % of all
digits correctly after the same correction. Soft labels thus carry what the teacher knows about
every class.
""",
    units=units,
    measure=measure,
    checks=checks,
    comparisons=comparisons,
    draw=draw,
    caption="Test errors by temperature (above), by hard-label weight (middle), and for "
    "students whose transfer set lacks classes (below).",
    differences="""
MNIST-5k has a fifteenth of MNIST's training images, so all error rates are higher; compare the
ratios. The teacher uses dropout and a jitter of two pixels, but no limit on its weights. It is
trained for the number of epochs given above and the students for two fifths of it, both with
distillguard's defaults, Adam and averaged weights. As in the paper, students never see jittered
images.

For MNIST, the paper says that all temperatures above 8 do about equally well with 300 or more units
in a layer, and that 2.5 to 4 work best with 30 units. The hard-label weight is the share of the
hard-label term in the mixed loss, whose soft term is multiplied by T squared.

The bias shift is the one with the fewest errors, or the middle one if several tie. The tables give
it twice: chosen on the *training* images, which is all that one has in practice, and chosen on the
test images, as in the paper. It is in units of the student's logits, which have the scale of the
teacher's. The teacher saw about 400 threes, Hinton's 6,000, so it knows less about them.
""",
    sizes={},
    # A pass of these networks costs about a quarter of one of the convolutional network.
    passes=lambda lab: len(lab.train[0]) * lab.epochs * (0.5 + 0.8 * (5 * 0.25 + 3 * 0.03)),
    kinds=lambda lab: (),
    settings={"optimizer": "Adam", "network": "mlp"},
)

if __name__ == "__main__":
    main(CLAIM)
