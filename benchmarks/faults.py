"""What becomes of the work when something breaks: kills, full disks, damage, threads, load.

    python -m benchmarks.faults                                         # minutes
    python -m benchmarks.faults --kills 1000 --files 10000 --minutes 60   # hours
    python -m benchmarks.faults --only kills damage --keep              # the other rows stay

Each row counts trials and how many were kept: what came out was bit for bit what an undisturbed
run gives, or an error of the documented kind with everything else as it was. What is neither is
lost, and the command fails. Needs ``fork``.
"""

import argparse
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks._common import circumstances, load, save, table
from distillguard import (
    DefensiveDistiller,
    RobustnessReport,
    UndefendedClassifier,
    attacks,
    evaluate,
)
from distillguard import load as load_estimator
from distillguard.exceptions import DivergenceError, SaveError

CHANCE = np.random.default_rng(0)
X = CHANCE.random((96, 8), dtype=np.float32)
Y = (X[:, :4].sum(1) > X[:, 4:].sum(1)).astype(int)
EPOCHS = 30


class Row(NamedTuple):
    """What became of some trials of one kind."""

    fault: str
    trials: int
    right: int
    refused: int

    @property
    def lost(self) -> int:
        """Trials that ended neither right nor with the error that they should."""
        return self.trials - self.right - self.refused

    def told(self) -> dict[str, Any]:
        """Return the row as the table and the result file have it."""
        return {**self._asdict(), "lost": self.lost}


def estimator(**settings: Any) -> DefensiveDistiller:
    """Return a small distiller; all that is random in it is seeded."""
    given = {"max_epochs": EPOCHS, "batch_size": 16, "random_state": 0, "temperature": 5.0}
    return DefensiveDistiller(**given | settings)


def weights(fitted: Any) -> bytes:
    """Return the weights of both networks, for comparison."""
    parts = [fitted.teacher_, fitted.student_]
    return b"".join(v.numpy().tobytes() for p in parts for v in p.state_dict().values())


def network() -> nn.Module:
    """Return a model to evaluate."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 2))


def report_of(model: nn.Module, **settings: Any) -> RobustnessReport:
    """Evaluate in many small chunks."""
    inputs = torch.from_numpy(X)
    given = {
        "epsilon": 0.1, "random_state": 0, "chunk_size": 4, "diagnosis": None,
        "attacks": {"fgsm": attacks.fgsm, "pgd": partial(attacks.pgd, steps=20, restarts=2)},
    }  # fmt: skip
    return evaluate(model, inputs, model(inputs).argmax(1), **given | settings)


def figures(part: Any) -> Any:
    """Return all that a report says, but the seconds and the date."""
    if isinstance(part, RobustnessReport):
        return figures(part.to_dict())
    if isinstance(part, dict):
        return {k: figures(v) for k, v in part.items() if k not in ("seconds", "date")}
    return [figures(value) for value in part] if isinstance(part, list | tuple) else part


# --- processes -------------------------------------------------------------------------------


def forked(task: Callable[[], Any], out: Path) -> int:
    """Start a process that writes what the task returns, or the error that it raises."""
    child = os.fork()
    if child:
        return child
    try:
        try:
            result = task()
        except Exception as error:
            result = f"{type(error).__name__}: {error}"
        out.write_bytes(pickle.dumps(result))
    finally:
        os._exit(0)


def ended(child: int, out: Path) -> Any:
    """Wait for a process and return what it wrote."""
    os.waitpid(child, 0)
    return pickle.loads(out.read_bytes())


def alone(task: Callable[[], Any], folder: Path) -> Any:
    """Run the task in a process of its own."""
    out = folder / "out"
    return ended(forked(task, out), out)


def survive(name: str, task: Callable[[Path], Any], expected: Any, kills: int, folder: Path) -> Row:
    """Kill runs at random moments, a few times each, and compare what they end with."""
    chance, done, right = random.Random(0), 0, 0
    began = time.perf_counter()
    alone(lambda: task(folder / "first"), folder)
    length = time.perf_counter() - began
    while done < kills:
        place, in_this = folder / f"run{done}", 0
        while in_this < 4:  # kills of one run
            child = forked(lambda place=place: task(place), folder / "out")
            time.sleep(chance.uniform(0, length / 2))
            os.kill(child, signal.SIGKILL)
            in_this += os.waitpid(child, 0)[1] == signal.SIGKILL
            if (folder / "out").exists():  # it was quicker
                (folder / "out").unlink()
                shutil.rmtree(place, ignore_errors=True)
        done += in_this
        right += in_this * (alone(lambda place=place: task(place), folder) == expected)
        (folder / "out").unlink()
        shutil.rmtree(place)
    return Row(f"{name} killed and resumed", done, right, 0)


def fit_in(place: Path) -> bytes:
    """Fit with checkpoints."""
    return weights(estimator(checkpoint_dir=place).fit(X, Y))


def evaluate_in(place: Path) -> Any:
    """Evaluate with a state file."""
    place.mkdir(exist_ok=True)
    return figures(report_of(network(), state_file=place / "state"))


def kills(options: argparse.Namespace, folder: Path) -> list[Row]:
    """SIGKILL of fits and evaluations."""
    half = options.kills // 2
    expected = weights(estimator().fit(X, Y)), figures(report_of(network()))
    return [
        survive("fits", fit_in, expected[0], half, folder),
        survive("evaluations", evaluate_in, expected[1], options.kills - half, folder),
    ]


# --- disks -----------------------------------------------------------------------------------


def writers(fitted: Any) -> dict[str, Callable[[Path], Any]]:
    """Everything that writes, by name."""
    report = report_of(network())
    return {
        "save": lambda place: fitted.save(place),
        "checkpoints": fit_in,
        "state file": evaluate_in,
        "report": lambda place: (place.mkdir(exist_ok=True), report.to_json(place / "report.json")),
    }


def content(place: Path) -> dict[str, bytes]:
    """What lies in a folder."""
    return {path.name: path.read_bytes() for path in sorted(place.iterdir()) if path.is_file()}


def limited(write: Callable[[Path], Any], place: Path, size: int) -> str:
    """Write where no file may grow beyond a size, and say what was raised."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write(place)
    except OSError as error:
        return f"OSError {error.filename}"
    except SaveError as error:
        return f"SaveError {error}"
    return "written"


def disks(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Disks that are full and folders that may not be written to."""
    return [_full(options, folder), _read_only(folder)]


def _full(options: argparse.Namespace, folder: Path) -> Row:
    """Files that cannot grow: told by their names, and nothing is left half written."""
    chance, right, refused = random.Random(0), 0, 0
    fitted = estimator(max_epochs=1).fit(X, Y)
    trials = max(1, options.kills // 10)
    for name, write in writers(fitted).items():
        for trial in range(trials):
            place = folder / f"full-{name}-{trial}"
            alone(lambda place=place, write=write: write(place), folder)
            before = content(place)
            largest = max(map(len, before.values()))
            size = chance.randrange(64, largest)
            shutil.rmtree(place)
            place.mkdir()
            told = _limited_in(write, place, size)
            kept = set(content(place)) <= set(before) | {f"teacher-{n:06}.ckpt" for n in range(99)}
            names = str(place) in told
            right += told == "written" and kept
            refused += told != "written" and names and kept
            if not (kept and (names or told == "written")):
                print(name, told, size, sorted(content(place)))
    return Row("full disk (file size limit)", 4 * trials, right, refused)


def _limited_in(write: Callable[[Path], Any], place: Path, size: int) -> str:
    """The message through a pipe: a file of the child's would be limited, too."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(theirs, limited(write, place, size).encode()[:4000])
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


def _read_only(folder: Path) -> Row:
    """Folders without permission to write: refused, and left as they are."""
    fitted, refused = estimator(max_epochs=1).fit(X, Y), 0
    everything = writers(fitted)
    for name, write in everything.items():
        place = folder / f"read-only-{name}"
        place.mkdir()
        place.chmod(0o555)

        def forbidden(write: Callable[[Path], Any] = write, place: Path = place) -> str:
            if os.geteuid() == 0:
                os.seteuid(65534)
            try:
                write(place)
            except (PermissionError, SaveError) as error:
                return str(error)
            finally:
                if os.getuid() == 0:
                    os.seteuid(0)
            return ""

        folder.chmod(0o755)
        told = alone(forbidden, folder)
        refused += str(place) in told and not list(place.iterdir())
    return Row("read-only folder", len(everything), 0, refused)


# --- what is given --------------------------------------------------------------------------


class Dying(Dataset):
    """Examples whose worker dies on the way."""

    def __init__(self, at: int) -> None:
        self.at = at

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return an example, or die."""
        if index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return torch.from_numpy(X[index]), int(Y[index])


class Raises(nn.Module):
    """A network that fails at a question, with NaN or by raising."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.inner, self.left, self.how = network(), at, how

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, until it is time."""
        self.left -= 1
        if self.left < 0 and self.how == "raises":
            raise ArithmeticError("the model is ill")
        return self.inner(inputs) * (float("nan") if self.left < 0 else 1)


def givens(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Dead workers, models that raise, and NaN."""
    rows = []
    n = max(1, options.kills // 20)
    # Each in a process of its own: PyTorch raises from a signal, wherever it finds the parent.
    places = random.Random(0).choices(range(len(X)), k=n)
    died = sum(alone(partial(_dies, at), folder) is True for at in places)
    rows.append(Row("dead DataLoader worker", n, 0, died))
    for how in ("raises", "gives NaN"):
        places = [7 * i for i in range(max(2, options.kills // 4))]
        outcomes = [_ill(at, how) for at in places]
        rows.append(
            Row(f"model {how}", len(places), outcomes.count("right"), outcomes.count("refused"))
        )
    fitted = estimator(max_epochs=2).fit(X, Y)
    known = weights(fitted)
    refused = 0
    for place in range(8):
        bad = X.copy()
        bad[place * 12, place] = np.nan
        try:
            fitted.fit(bad, Y)
        except ValueError:
            refused += weights(fitted) == known
    rows.append(Row("NaN in the data", 8, 0, refused))
    diverged = [_diverges(10.0**power) for power in range(20, 30, 2)]
    rows.append(Row("NaN in training", len(diverged), 0, sum(diverged)))
    return rows


def _diverges(learning_rate: float) -> bool:
    """Whether a training that diverges says so and keeps the last good weights."""
    wild = UndefendedClassifier(
        optimizer="sgd", learning_rate=learning_rate, max_epochs=3, random_state=0
    )
    try:
        wild.fit(X, Y)
    except DivergenceError:
        return all(bool(p.isfinite().all()) for p in wild.model_.parameters())
    return False


def _dies(at: int) -> bool:
    fitted = UndefendedClassifier(max_epochs=1, random_state=0)
    try:
        fitted.fit(DataLoader(Dying(at), 16, num_workers=1))
    except (RuntimeError, ConnectionError):  # which of them is PyTorch's race
        return not hasattr(fitted, "model_")
    return False


def _ill(at: int, how: str) -> str:
    """Whether an evaluation says what is wrong with a model, and leaves it as it was."""
    model = Raises(10**9, how).train()
    expected = figures(report_of(model, chunk_size=48))
    model.left = at
    before = [part.training for part in model.modules()]
    try:
        inputs = torch.from_numpy(X)
        labels = model.inner(inputs).argmax(1)
        report = evaluate(
            model, inputs, labels, epsilon=0.1, random_state=0, chunk_size=48, diagnosis=None,
            attacks={"fgsm": attacks.fgsm, "pgd": partial(attacks.pgd, steps=20, restarts=2)},
        )  # fmt: skip
    except (ArithmeticError, ValueError, RuntimeError):
        result = "refused"
    else:
        told = any(row.error for row in report.attacks)
        result = "right" if figures(report) == expected else "refused" if told else "other"
    kept = before == [part.training for part in model.modules()]
    return result if kept and all(p.requires_grad for p in model.parameters()) else "other"


# --- damage ----------------------------------------------------------------------------------


def damaged(chance: random.Random, held: bytes, other: bytes) -> bytes:
    """What disks, downloads and editors do to a file."""
    kind = chance.randrange(7)
    at = chance.randrange(len(held))
    if kind <= 2:
        changed = bytearray(held)
        for _ in range(chance.choice([1, 1, 2, 10])):
            changed[chance.randrange(len(held))] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if kind == 3:
        return held[:at]
    if kind == 4:
        return held + chance.randbytes(chance.randrange(1, 100))
    if kind == 5:
        return held[:at] + other[at : at + chance.randrange(1, 300)] + held[at:]
    return held[:at] + bytes(min(512, len(held) - at)) + held[at + 512 :]


def damage(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Files of every kind, damaged: read right or refused."""
    fitted = estimator(max_epochs=2).fit(X, Y)
    model, expected = network(), figures(report_of(network(), chunk_size=48))
    for name, write in writers(fitted).items():
        write(folder / name)
    (folder / "state file" / "state").unlink()
    report_of(model, chunk_size=48, state_file=folder / "state file" / "state")
    shutil.rmtree(folder / "checkpoints")
    short = {"max_epochs": 2}
    broken = weights(estimator(checkpoint_dir=folder / "checkpoints", **short).fit(X, Y))
    readers: dict[str, tuple[Callable[[Path], Any], Any]] = {
        "save": (lambda place: weights(load_estimator(place)), weights(fitted)),
        "checkpoints": (
            lambda place: weights(estimator(checkpoint_dir=place, **short).fit(X, Y)),
            broken,
        ),
        "state file": (
            lambda place: figures(report_of(model, chunk_size=48, state_file=place / "state")),
            expected,
        ),
        "report": (lambda place: _quoted(RobustnessReport.from_json(place / "report.json")), None),
    }
    readers["report"] = (
        readers["report"][0],
        readers["report"][0](folder / "report"),
    )
    each = options.files // len(readers)
    return [_damage(name, *reader, each, folder) for name, reader in readers.items()]


def _quoted(report: RobustnessReport) -> Any:
    """The figures that are quoted, each of which follows from others."""
    clean = report.n_examples, report.clean_accuracy, report.clean_interval
    return clean, report.robust_accuracy, report.robust_interval, report.quoted_accuracy


def _damage(
    name: str, read: Callable[[Path], Any], expected: Any, trials: int, folder: Path
) -> Row:
    chance, right, refused = random.Random(name), 0, 0
    whole = folder / name
    copy = folder / "copy"
    for _ in range(trials):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(whole, copy)
        path, other = (chance.choice(sorted(copy.iterdir())) for _ in range(2))
        path.write_bytes(damaged(chance, path.read_bytes(), other.read_bytes()))
        try:
            found = read(copy)
        except (SaveError, ValueError):
            refused += 1
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}")
        else:
            right += found == expected
    return Row(f"damaged {name}", trials, right, refused)


# --- threads, forks and load -----------------------------------------------------------------


def threads(options: argparse.Namespace, folder: Path) -> list[Row]:
    """Fits and attacks in threads that share a model, and forks meanwhile."""
    model, inputs = network(), torch.from_numpy(X)
    labels = model(inputs).argmax(1)
    tasks: list[Callable[[], Any]] = [
        lambda: attacks.pgd(model, inputs, labels, epsilon=0.1, random_state=0).numpy().tobytes(),
        lambda: weights(estimator(max_epochs=2).fit(X, Y)),
    ]
    expected = [task() for task in tasks]
    results: list[bool] = []

    def work(which: int, times: int) -> None:
        results.extend(tasks[which]() == expected[which] for _ in range(times))

    times = max(1, options.kills // 8)
    workers = [threading.Thread(target=work, args=(i % 2, times)) for i in range(4)]
    for worker in workers:
        worker.start()
    forks, right = 0, 0
    while any(worker.is_alive() for worker in workers) and forks < options.kills:
        right += alone(tasks[forks % 2], folder) == expected[forks % 2]
        forks += 1
    for worker in workers:
        worker.join()
    return [
        Row("threads that share a model", 4 * times, sum(results), 0),
        Row("forks beside such threads", forks, right, 0),
    ]


def mebibytes() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def loaded(minutes: float, folder: Path) -> dict[str, Any]:
    """Fit, save, load, evaluate and resume for some minutes, and watch the memory."""
    end = time.monotonic() + 60 * minutes
    held, rounds = [], 0
    while time.monotonic() < end or rounds < 8:
        fitted = estimator(max_epochs=2, random_state=rounds).fit(X, Y)
        fitted.save(folder / "load")
        again = load_estimator(folder / "load")
        for _ in range(2):
            report = report_of(again.student_, chunk_size=48, state_file=folder / "state")
        RobustnessReport.from_json(report.to_json())
        (folder / "state").unlink()
        rounds += 1
        held.append(mebibytes())
    settled = held[len(held) // 4 :]
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0]
    return {
        "rounds": rounds,
        "minutes": minutes,
        "MiB after a quarter": round(settled[0], 1),
        "MiB at the end": round(settled[-1], 1),
        "KiB for each round": round(1024 * float(slope), 2),
    }


PARTS: dict[str, Callable[[argparse.Namespace, Path], list[Row]]] = {
    "kills": kills, "disks": disks, "givens": givens, "damage": damage, "threads": threads,
}  # fmt: skip


def main() -> None:
    """Run the parts, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=40, help="kills of fits and evaluations")
    parser.add_argument("--files", type=int, default=400, help="damaged files of all kinds")
    parser.add_argument("--minutes", type=float, default=1.0, help="of mixed load")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, "load"], default=[*PARTS, "load"])
    parser.add_argument("--keep", action="store_true", help="keep the other rows of the results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.keep:
        save("faults", {"parts": {}, "load": None, **circumstances()})
    for name in options.only:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as place:
            if name == "load":
                found = loaded(options.minutes, Path(place))
            else:
                found = [row.told() for row in PARTS[name](options, Path(place))]
        held = load("faults")  # what is known is kept, whatever becomes of the other parts
        held = held | {"load": found} if name == "load" else held
        parts = held["parts"] if name == "load" else held["parts"] | {name: found}
        save("faults", {**held, "parts": parts, **circumstances()})
        print(f"{name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    held = load("faults")
    rows = [row for name in PARTS for row in held["parts"].get(name, [])]
    print(table(rows, ["fault", "trials", "right", "refused", "lost"]))
    print(held["load"])
    if any(row["lost"] for row in rows):
        sys.exit("something was lost")


if __name__ == "__main__":
    main()
