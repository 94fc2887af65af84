"""How many examples go through a network at once."""

from itertools import chain

from torch import Tensor

STRIDE = 32


def few_sizes(examples: Tensor) -> tuple[Tensor, ...]:
    """Cut examples so that, over many calls, batches come in few different sizes.

    On CPUs, PyTorch keeps a compiled convolution for every size of batch that it has met: an
    attack whose survivors dwindle one by one would collect a hundred megabytes of them. Cut into a
    multiple of 32 and the rest, up to n examples come in 31 + n / 32 sizes, for a second, small
    call.
    """
    whole = len(examples) // STRIDE * STRIDE
    if examples.device.type != "cpu" or whole in (0, len(examples)):
        return (examples,)
    return examples[:whole], examples[whole:]


def batches(examples: Tensor, size: int) -> chain[Tensor]:
    """Cut examples into batches of ``size``, and what is left over into few sizes."""
    return chain.from_iterable(few_sizes(batch) for batch in examples.split(size))
