"""Progress bars: tqdm's where one is shown, nothing at all where none is."""

from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from tqdm import tqdm


class NoBar:
    """What a bar is told, while none is shown.

    One of tqdm's that is disabled starts a thread and takes a lock that processes share: where one
    of them is killed in that moment, the others wait for ever.
    """

    total: int | None = None

    def update(self, n: float = 1) -> None:
        """Count."""

    def set_description(self, desc: str, refresh: bool) -> None:
        """Name what is going on."""

    def set_postfix(self, ordered_dict: dict[str, str]) -> None:
        """Show figures."""

    def close(self) -> None:
        """End."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        pass


def progress_bar(
    shown: bool, *, total: int | None, unit: str, desc: str | None = None
) -> "tqdm[Any] | NoBar":
    """Return a bar of ``total`` units, if it is to be shown."""
    if not shown:
        return NoBar()
    from tqdm.auto import tqdm

    return tqdm(total=total, unit=unit, desc=desc)
