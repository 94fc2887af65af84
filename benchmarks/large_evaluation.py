"""``evaluate(attacks="quick")`` on all 60,000 images of Fashion-MNIST: memory, kills, resuming.

    python -m benchmarks.large_evaluation [--kills 3] [--threads 1]

Writes the images to a file in float32 (188 MB), and reads them from it through a DataLoader, a
batch at a time. Evaluates them in a process that watches how much memory it takes from the system
for itself (pages of the mapped file, which the system takes back when it likes, are not counted);
then again in processes that are killed at random moments and started anew. Writes the growth and
whether the two reports are the same but for the seconds in them.
"""

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks._common import circumstances, save
from benchmarks._small import network
from distillguard import UndefendedClassifier, datasets, evaluate

EPSILON = 0.1


class Mapped(Dataset[tuple[Tensor, Tensor]]):
    """Images of a mapped file, each with its label."""

    def __init__(self, folder: Path) -> None:
        self.images = np.load(folder / "images.npy", mmap_mode="r")
        self.labels = np.load(folder / "labels.npy")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(self.images[index].copy()), torch.tensor(self.labels[index])


def private_memory() -> int:
    """Bytes that belong to this process alone."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.findall(r"RssAnon:\s+(\d+)", status)[0])


def work(folder: Path, report: Path, state: Path | None) -> None:
    """Evaluate everything; write the report and how far memory grew."""
    model = network()
    model.load_state_dict(torch.load(folder / "network.pt", weights_only=True))
    settings: dict[str, Any] = {"epsilon": EPSILON, "attacks": "quick", "random_state": 0}
    examples = Mapped(folder)
    first = torch.utils.data.Subset(examples, range(2048))
    evaluate(model, DataLoader(first, batch_size=250), **settings)  # whatever loads only once

    before, peak, calls = private_memory(), 0, 0

    def watch(*_: Any) -> None:
        nonlocal peak, calls
        calls += 1
        if calls % 50 == 0:
            peak = max(peak, private_memory())

    model.register_forward_hook(watch)
    began = time.perf_counter()
    found = evaluate(model, DataLoader(examples, batch_size=250), state_file=state, **settings)
    seconds = time.perf_counter() - began
    found.to_json(report)
    told = {"growth": max(peak, private_memory()) - before, "seconds": seconds}
    (folder / "told.json").write_text(json.dumps(told))


def timeless(value: Any) -> Any:
    """A report without seconds and date, all that may differ between two runs of one evaluation."""
    if isinstance(value, dict):
        kept = value.keys() - {"seconds", "date"}
        return {name: timeless(value[name]) for name in kept}
    return [timeless(each) for each in value] if isinstance(value, list) else value


def killed(command: list[str], state: Path, kills: int) -> int:
    """Run a command to its end through so many kills at random moments; those that hit."""
    moments, hits = random.Random(0), 0
    while True:
        process = subprocess.Popen(command)
        size = state.stat().st_size if state.exists() else 0
        wait = moments.uniform(0.0, 5.0)
        while process.poll() is None:
            time.sleep(0.01)
            if hits < kills and state.exists() and state.stat().st_size > size:
                time.sleep(wait)  # somewhere among the chunks after the first new one
                process.send_signal(signal.SIGKILL)
        if process.returncode == 0:
            return hits
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(f"the evaluation ended with status {process.returncode}")
        hits += 1


def main() -> None:
    """Prepare the files, run both ways, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    if chosen.work:
        folder, report, state = chosen.work
        work(Path(folder), Path(report), Path(state) if state else None)
        return

    X, y = datasets.load_fashion_mnist("train")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", X.numpy())
        np.save(folder / "labels.npy", y.numpy())
        fitted = UndefendedClassifier(network, max_epochs=3, random_state=0)
        torch.save(fitted.fit(X[:10_000], y[:10_000]).model_.state_dict(), folder / "network.pt")
        command = [sys.executable, "-m", "benchmarks.large_evaluation"]
        command += ["--threads", str(chosen.threads), "--work", name]
        subprocess.run([*command, str(folder / "whole.json"), ""], check=True)
        told = json.loads((folder / "told.json").read_text())
        state = folder / "state"
        hits = killed([*command, str(folder / "resumed.json"), str(state)], state, chosen.kills)
        whole, resumed = (
            timeless(json.loads((folder / each).read_text()))
            for each in ("whole.json", "resumed.json")
        )
    result = {
        "examples": len(X),
        "data_bytes": X.numel() * X.element_size(),
        "growth_bytes": told["growth"],
        "growth / data": told["growth"] / (X.numel() * X.element_size()),
        "seconds": told["seconds"],
        "kills": hits,
        "reports equal": whole == resumed,
        "robust_accuracy": whole["robust_accuracy"],
    }
    print(result)
    save("large-evaluation", {**circumstances(), **result})


if __name__ == "__main__":
    main()
