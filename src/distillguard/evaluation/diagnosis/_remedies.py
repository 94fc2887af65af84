"""Lines of code that several remedies name."""

STRAIGHT_THROUGH = "y = x + (part(x) - x).detach()"
"""A part that keeps its values and has the gradient of the identity (BPDA)."""

AVERAGED = "lambda x: torch.stack([model(x) for _ in range(20)]).softmax(dim=2).mean(dim=0).log()"
"""A model whose answers, and gradients, are means over many draws (EOT)."""

STAND_IN = (
    "attack through a differentiable stand-in for the part that hides the gradient (BPDA), "
    f"{STRAIGHT_THROUGH} in its place"
)
