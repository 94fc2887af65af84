"""A study on digits: four networks, three attacks, three seeds; table, intervals, test and figure.

python examples/study.py [folder to write to]
"""

import sys
from functools import partial
from pathlib import Path

from distillguard import (
    AdversarialTrainer,
    DefensiveDistiller,
    UndefendedClassifier,
    attacks,
    datasets,
    evaluate,
)
from distillguard.evaluation import compare

X, y = (part[:600] for part in datasets.load_digits("train"))
X_test, y_test = (part[:40] for part in datasets.load_digits("test"))
networks = {
    "undefended": UndefendedClassifier,
    "distilled, T = 100": partial(DefensiveDistiller, temperature=100.0),
    "PGD training": partial(AdversarialTrainer, objective="pgd", epsilon=0.1),
    "TRADES": partial(AdversarialTrainer, objective="trades", epsilon=0.1),
}
tried = ["pgd", partial(attacks.pgd, loss="margin"), partial(attacks.square, queries=100)]
settings = {"epsilon": 0.1, "attacks": tried, "survivors_only": False}
reports = {name: [] for name in networks}
for name, network in networks.items():
    for seed in range(3):
        model = network(max_epochs=4, random_state=seed).fit(X, y)
        reports[name].append(evaluate(model, X_test, y_test, random_state=seed, **settings))

study = compare(reports)
print(study, *study.paired("TRADES", "distilled, T = 100"), sep="\n")
out = Path(sys.argv[1] if len(sys.argv) > 1 else "build/study")
out.mkdir(parents=True, exist_ok=True)
study.to_latex(out / "study.tex")
study.to_csv(out / "study.csv")
study.plot().figure_.savefig(out / "study.png", bbox_inches="tight")
