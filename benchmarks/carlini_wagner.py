"""The Carlini-Wagner attacks beside adversarial-library, on an undefended and a distilled network.

Trains Papernot's MNIST network twice (undefended, and distilled at T = 100), attacks the first
test images that both classify correctly, and writes ``results/carlini-wagner-DATA.json``: success,
median and mean distance, evaluations per example counted by a wrapper around the model, seconds.
Run it with ``python -m benchmarks.carlini_wagner --data mnist5k``.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks._common import Counted, circumstances, save, table
from benchmarks._peers import imported
from distillguard import DefensiveDistiller, UndefendedClassifier, attacks, datasets, networks

LOADERS = {"mnist5k": datasets.load_mnist5k, "fashion-mnist": datasets.load_fashion_mnist}
ORDERS = {"l2": 2.0, "linf": math.inf, "l0": 0.0}


def contenders() -> list[tuple[str, str, float, Callable[..., Tensor]]]:
    """Norm, name, temperature, attack."""
    peers = imported("adv-lib")
    slow = partial(peers.carlini_wagner_l2, learning_rate=0.05, max_iterations=200)
    return [
        ("l2", "distillguard carlini_wagner_l2", 1, attacks.carlini_wagner_l2),
        ("l2", "adv-lib carlini_wagner_l2 9 x 200", 1, slow),
        ("l2", "adv-lib ddn 200", 1, partial(peers.ddn, steps=200)),
        ("l2", "adv-lib ddn 1000", 1, partial(peers.ddn, steps=1000)),
        ("l2", "adv-lib ddn 200 on logits / 100", 100, partial(peers.ddn, steps=200)),
        ("linf", "distillguard carlini_wagner_linf", 1, attacks.carlini_wagner_linf),
        ("linf", "adv-lib carlini_wagner_linf", 1, peers.carlini_wagner_linf),
        ("linf", "adv-lib fmn 200", 1, partial(peers.fmn, norm=math.inf, steps=200)),
        ("l0", "distillguard carlini_wagner_l0", 1, attacks.carlini_wagner_l0),
        ("l0", "adv-lib sigma_zero 200", 1, partial(peers.sigma_zero, num_steps=200)),
    ]


def measured(model: nn.Module, inputs: Tensor, labels: Tensor, norm: str, **row: object) -> dict:
    """Run one contender."""
    attack: Callable[..., Tensor] = row.pop("attack")  # type: ignore[assignment]
    counted = Counted(model, float(row.pop("temperature")))  # type: ignore[arg-type]
    began = time.perf_counter()
    adversarial = attack(counted, inputs, labels)
    seconds = time.perf_counter() - began
    with torch.no_grad():
        fooled = model(adversarial).argmax(dim=1) != labels
    distance = torch.linalg.vector_norm(
        (adversarial - inputs).flatten(1), ord=ORDERS[norm], dim=1
    ).masked_fill(~fooled, math.inf)
    return row | {
        "norm": norm,
        "success": fooled.float().mean().item(),
        "median": distance.median().item(),
        "mean": distance[fooled].mean().item(),
        "forwards": counted.forwards / len(inputs),
        "backwards": counted.backwards / len(inputs),
        "seconds": seconds,
    }


def main() -> None:
    """Train, attack, print, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=LOADERS, default="mnist5k")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--norms", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    train, test = (LOADERS[options.data](split) for split in ("train", "test"))
    settings = {"max_epochs": options.epochs, "random_state": 0, "precision": "bf16-mixed"}
    undefended = UndefendedClassifier(networks.papernot_mnist, **settings).fit(train)
    distilled = DefensiveDistiller(networks.papernot_mnist, temperature=100, **settings).fit(train)

    rows = []
    for name, model in {"undefended": undefended.network_, "T=100": distilled.student_}.items():
        model.eval().requires_grad_(False)
        right = (model(test[0]).argmax(dim=1) == test[1]).nonzero().squeeze(1)[: options.examples]
        for norm, title, temperature, attack in contenders():
            if norm in options.norms:
                row = {"network": name, "attack_name": title, "attack": attack}
                row = measured(
                    model, test[0][right], test[1][right], norm, temperature=temperature, **row
                )
                rows.append(row)
                print(row, flush=True)
                about = {**circumstances("adv-lib"), "examples": options.examples}
                save(f"carlini-wagner-{options.data}", {**about, "rows": rows})
    print(table(rows, list(rows[0])))


if __name__ == "__main__":
    main()
