"""Lines of code that several remedies name."""

STRAIGHT_THROUGH = 'adaptive.straight_through(model, part="name of the part")'
"""A part that keeps its values and has the gradient of the identity (BPDA)."""

AVERAGED = "evaluate(model, X, y, draws=20, ...), or adaptive.averaged(model, 20) in its place"
"""A model whose answers, and gradients, are means over many draws (EOT)."""

STAND_IN = (
    "attack through a differentiable stand-in for the part that hides the gradient (BPDA), "
    f"evaluate({STRAIGHT_THROUGH}, X, y, ...), or along the gradient of a student of the model, "
    "adaptive.gradient_from(model, adaptive.distil_surrogate(model, X_train))"
)
