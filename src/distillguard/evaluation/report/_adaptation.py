"""What attacks that were adapted to the model found besides."""

from dataclasses import dataclass

from ._rows import AttackRow


@dataclass(frozen=True)
class Adaptation:
    """What was done about the findings, and what attacks found then.

    Attributes
    ----------
    findings : tuple of str
        Codes of the findings that named what to do.
    standing : int
        Examples that the attacks passed and the diagnosis had left.
    attacked : int
        Of those, the ones attacked again: of data that are read once those of the diagnosis's
        sample, else all.
    fooled : int
        Of those, the ones fooled.
    remedies : tuple of str
        In which forms the model was attacked, in words.
    attacks : tuple of AttackRow
        The attacks on these forms, each on what those before it had left. Points are judged on
        the model itself; where it draws random numbers on its mean over draws that no attack has
        seen.
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
