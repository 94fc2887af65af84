"""One bar over all that an evaluation does: an example counts once for each stage."""

from collections.abc import Iterator
from contextlib import contextmanager

from .._bar import progress_bar


class Progress:
    """A progress bar that knows how much there is to do, as soon as anybody does.

    ``stages`` is what each example goes through, ``probes`` what each of the ``sampled`` ones of
    the diagnosis does.
    """

    def __init__(
        self,
        shown: bool,
        examples: int | None,
        *,
        stages: int = 1,
        sampled: int = 0,
        probes: int = 0,
        processes: int = 1,
    ) -> None:
        self.stages, self.sampled, self.probes = stages, sampled, probes
        if examples is not None:
            examples = -(-examples // processes)
        self.bar = progress_bar(shown, total=self.total(examples), unit="example")
        self.left = self.weight = 0

    def total(self, examples: int | None) -> int | None:
        """Examples times stages, and those of the diagnosis."""
        if examples is None:
            return None
        return examples * self.stages + min(examples, self.sampled) * self.probes

    @contextmanager
    def during(self, stage: str, examples: int) -> Iterator[None]:
        """Name a stage, and count its examples when it is over."""
        self.bar.set_description(stage, refresh=False)
        yield
        self.bar.update(examples)

    def skip(self, examples: int) -> None:
        """Count examples that have been through all stages in an earlier run."""
        self.bar.update(examples * self.stages)

    def diagnose(self, examples: int, sampled: int, probes: int) -> None:
        """All ``examples`` are through; what is left of the bar is the diagnosis."""
        self.sampled, self.probes = sampled, probes
        self.bar.total = self.total(examples)
        self.weight = min(examples, self.sampled)
        self.left = self.weight * self.probes

    def tell(self, probe: str) -> None:
        """Count a measurement of the diagnosis."""
        done = min(self.left, self.weight)
        self.left -= done
        self.bar.set_description(f"diagnosis: {probe}", refresh=False)
        self.bar.update(done)

    def close(self) -> None:
        """All is done."""
        self.bar.update(self.left)
        self.bar.close()
