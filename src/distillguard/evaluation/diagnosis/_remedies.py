"""Lines of code that several remedies name."""

STRAIGHT_THROUGH = 'adaptive.straight_through(model, part="name of the part")'
"""A part that keeps its outputs and gets the gradient of the identity (BPDA)."""

AVERAGED = "evaluate(model, X, y, ..., draws=20), or evaluate adaptive.averaged(model, 20)"
"""A model whose outputs, and gradients, are means over many draws (EOT)."""

REPLACEMENT = (
    "attack through a differentiable replacement of the part that hides the gradient (BPDA), "
    f"evaluate({STRAIGHT_THROUGH}, X, y, ...), or along the gradient of a student of the model, "
    "adaptive.gradient_from(model, adaptive.distil_surrogate(model, X_train))"
)
