"""Results of attacks that were adapted to the findings."""

from dataclasses import dataclass

from ._rows import AttackRow


@dataclass(frozen=True)
class Adaptation:
    """What was done about the findings, and what came of it.

    Attributes
    ----------
    findings : tuple of str
        Codes of the findings that attacks were adapted to.
    standing : int
        Examples that the attacks passed and the diagnosis had left.
    attacked : int
        Of those, the ones attacked again: all, or those in the sample of the diagnosis if the data
        can be read only once.
    fooled : int
        Of those, the ones fooled.
    remedies : tuple of str
        The forms in which the model was attacked, in words.
    attacks : tuple of AttackRow
        The attacks on these forms, each on the examples that those before it had left. Points are
        judged on the model itself; if it draws random numbers, on its mean over draws that no
        attack has seen.
    failed : tuple of str
        What could not be adapted to, and why.
    """

    findings: tuple[str, ...]
    standing: int
    attacked: int
    fooled: int
    remedies: tuple[str, ...]
    attacks: tuple[AttackRow, ...]
    failed: tuple[str, ...]
