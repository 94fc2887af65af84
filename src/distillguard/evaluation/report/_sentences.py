"""The result in words: headline, outcomes, a summary for people."""

from typing import TYPE_CHECKING

from ._numbers import interval, percent

if TYPE_CHECKING:
    from ..diagnosis._findings import Finding
    from ._adaptation import Adaptation
    from ._report import RobustnessReport


def headline(report: "RobustnessReport") -> str:
    """The result in one line: the figure to quote, with a warning where another is at hand."""
    codes = ", ".join(f.code for f in report.findings if f.severity == "severe")
    codes, seen = f" ({codes})" if codes else "", report.observations
    if report.n_fooled_besides:
        loud = in_doubt(report) or report.quoted_accuracy < report.robust_interval[0]
        again = report.adaptation
        partly = again is None or again.attacked < again.standing
        at_most = "at most " if partly and seen.sampled < seen.correct else ""
        not_that = "" if same_as_quoted(report) else f", not {percent(report.robust_accuracy)}"
        outcomes = [diagnosis_outcome(report)] if seen.n_fooled_by_diagnosis else []
        outcomes += [adaptation_outcome(again)] if again and again.attacked else []
        return (
            f"{'WARNING: quote' if loud else 'Quote'} {at_most}{quoted(report)}{not_that}: "
            f"{', and '.join(outcomes)}{codes}"
        )
    if in_doubt(report):
        return f"WARNING: quote {quoted(report)} as an upper bound only{codes}"
    if codes:
        return f"{result(report)}; attacks on the cross-entropy alone are blind here{codes}"
    return result(report)


def quoted(report: "RobustnessReport") -> str:
    """``"4.5 % [2.4, 8.3] robust accuracy"``, the diagnosis counted."""
    return f"{percent(report.quoted_accuracy)} {interval(report.quoted_interval)} robust accuracy"


def same_as_quoted(report: "RobustnessReport") -> bool:
    """Whether the attacks' own figure is printed as the one to quote is."""
    return percent(report.robust_accuracy) == percent(report.quoted_accuracy)


def in_doubt(report: "RobustnessReport") -> bool:
    """Whether a severe finding casts doubt on the figure itself.

    Not where it says that the cross-entropy alone is blind, and the attacks passed are not: the
    diagnosis looked at what they left and fooled none of it.
    """
    return any(
        finding.severity == "severe" and not blind_cross_entropy(finding)
        for finding in report.findings
    )


def blind_cross_entropy(finding: "Finding") -> bool:
    """Whether a finding is about attacks on the cross-entropy and no others."""
    if finding.code == "zero-gradients":  # The logits' own gradient is there.
        return finding.figures["share_scaled"] < finding.figures["share"] / 2
    return finding.code == "margin-beats-cross-entropy"


def diagnosis_outcome(report: "RobustnessReport") -> str:
    """What the diagnosis fooled of the examples that withstand the attacks passed."""
    seen = report.observations
    sampled = "" if seen.sampled == seen.correct else "sampled "
    return (
        f"the diagnosis fooled {seen.n_fooled_by_diagnosis} of the {seen.attack_survivors} "
        f"{sampled}examples that withstand the attacks passed"
    )


def adaptation_outcome(adaptation: "Adaptation") -> str:
    """What adapted attacks fooled of what they were run on."""
    count = adaptation.attacked
    sampled = "" if count == adaptation.standing else "sampled "
    return f"attacks adapted to the findings fooled {adaptation.fooled} of {count} {sampled}left"


def result(report: "RobustnessReport") -> str:
    """Accuracies, threat model and number of examples, in one line."""
    alone = "Robust"
    if report.n_fooled_besides:
        alone = "Against the attacks passed alone, robust"
    undiagnosed = "" if report.observations.diagnosis else ", without a diagnosis"
    return (
        f"{alone} accuracy {percent(report.robust_accuracy)} {interval(report.robust_interval)} "
        f"within {report.norm} {report.epsilon:.6g}, clean accuracy "
        f"{percent(report.clean_accuracy)} {interval(report.clean_interval)}, "
        f"{report.n_examples} examples{undiagnosed}"
    )


def summary(report: "RobustnessReport") -> str:
    """What was done to how many examples, what that says and how sure it is, in plain words."""
    seen, n = report.observations, report.n_examples
    ran = [row for row in report.attacks if row.error is None]
    attacks = "1 attack" if len(ran) == 1 else f"{len(ran)} attacks"
    few = f"{n} examples" if seen.correct == n else f"{seen.correct} of {n} examples"
    within = f"{report.epsilon:.6g} in {report.norm}"
    done = (
        f"{attacks} tried to change the {few} that the model classifies correctly, each by at most "
        f"{within}: {report.n_robust} withstood all."
    )
    if not ran:
        done = (
            f"No attack ran to its end on the {few} that the model classifies correctly: "
            f"{report.n_robust} were not fooled within {within}."
        )
    if report.rejection is not None:
        done += (
            f" The model rejected {report.rejection.clean} of the clean examples, which count as "
            f"errors, and an attack's point for {report.rejection.adversarial} of those that "
            "withstood."
        )
    if not seen.diagnosis:
        done += " Whether the attacks failed for the right reason was not examined."
    elif seen.sampled:
        more = seen.n_fooled_by_diagnosis or "none"
        done += (
            f" The diagnosis looked at {seen.sampled} of them, to see whether the attacks failed "
            f"for the right reason, and fooled {more} of those that the attacks had left."
        )
    if report.adaptation is not None and report.adaptation.attacked:
        more = report.adaptation.fooled or "none"
        done += (
            f" {report.adaptation.attacked} were attacked again, with attacks adapted to what it "
            f"found: {more} were fooled."
        )
    low, high = report.quoted_interval
    return (
        f"{done} Of all examples of this kind {100 * low:.1f} to {100 * high:.1f} % withstand what "
        "was tried (95 % confidence). A better attack can lower the figure; nothing here can show "
        "that there is none."
    )


def heading(report: "RobustnessReport") -> str:
    """What stands over the report."""
    return " ".join((report.title or f"Robustness of {report.model}").split())


def subject(report: "RobustnessReport") -> list[str]:
    """The model, the examples, and when it was."""
    known = (report.model, report.dataset, f"{report.date[:10]} {report.date[11:16]} UTC")
    return [" ".join(part.split()) for part in known if part]


def no_findings(report: "RobustnessReport") -> str:
    """What stands where findings would."""
    return "No findings." if report.observations.diagnosis else "No findings: no diagnosis was run."
