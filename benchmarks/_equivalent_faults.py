"""Faults by rule that no test can tell from the code as it is, each with the reason."""

EQUIVALENT = {
    "attacks/_checks.py sounded: reduction: new_zeros -> new_ones": (
        "another key of the same draw: any sample of the inputs serves"
    ),
    "defenses/_reconstruction_error.py ReconstructionError.fit: constant: 62 -> 31": (
        "from how many seeds one is drawn: still more than anybody draws"
    ),
    "evaluation/_layer_by_layer.py _Trial.attacked: keyword: , diagnosis=None -> nothing": (
        "a diagnosis that nobody reads costs time and changes no verdict"
    ),
    "estimators/_settings.py TrainingSettings.seed: constant: 31 -> 15": (
        "from how many seeds one is drawn: still more than anybody draws"
    ),
}
