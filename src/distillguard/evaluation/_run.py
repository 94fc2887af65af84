"""One chunk after another: a clean pass, then each attack on the survivors."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from .._account import charged
from .._data import Chunk, Spec
from .._geometry import check_reach
from .._modes import borrowed, device_of, dtype_of
from .._random import example_keys
from .._rejection import n_classes_of, refused
from .._typing import Model
from .._validation import check_finite_output, look_like_probabilities
from ..attacks._engine import model_facts
from ..exceptions import NoGradientError
from ..functional import margin_loss
from ._captions import Captions
from ._errors import described, noted, ran_out_of_memory
from ._first_batch import layout_explained
from ._judge import ThreatModel, Verdict, Witness, check_points, judge
from ._ours import masked
from ._presets import AttackSpec
from ._progress import Progress
from ._query import QueryCounter, logits_of
from ._records import Records
from ._unasked import Unasked

STALLED = 0.95
"""Share of the clean lead above which attacks have not got anywhere."""


@dataclass
class Run:
    """An evaluation under way."""

    model: QueryCounter
    attacks: Mapping[str, AttackSpec]
    threat: ThreatModel
    survivors_only: bool
    batch_size: int
    seed: int
    records: Records
    spec: Spec
    """What the examples are held to, with the caller's names for them."""
    captions: Captions
    searched: Model | None = None
    """What the attacks are given in place of the model; every verdict is the model's own."""
    keep: str = "few"
    """Whose points are kept: one of :data:`KEPT`."""
    raised: dict[str, Exception] = field(default_factory=dict)
    """What attacks raised, other than for lack of gradients."""
    fooled_by_diagnosis: Tensor = field(default_factory=lambda: torch.arange(0, device="cpu"))
    """Places of the examples that the diagnosis fooled and the attacks had not: (m,) int64."""
    unasked: Unasked | None = None
    """The model as it was before anything was asked, if it can be copied."""
    progress: Progress = field(default_factory=lambda: Progress(False, None))

    def __post_init__(self) -> None:
        self.model.takes_logarithm = self.records.probabilities
        self.search.facts = self.records.facts
        if self.keep != "few":
            self.records.shown.size = sys.maxsize

    @cached_property
    def search(self) -> QueryCounter:
        """The model that attacks ask, on the same account."""
        return self.model if self.searched is None else self.model.around(self.searched)

    def add(self, chunk: Chunk, number: int) -> None:
        """Measure what is not known of a chunk yet, keep its figures and drop its images."""
        unknown = [name for name in self.attacks if self.records.known.get(name, 0) <= number]
        if len(chunk.inputs) and unknown:
            device = device_of(self.model, chunk.inputs.device)
            chunk = chunk._replace(inputs=chunk.inputs.to(device), labels=chunk.labels.to(device))
            rows = self.clean_pass(chunk)
            self.examine(chunk.inputs, chunk.labels, self.threat.of(chunk.places))
            self.attack_in_turn(chunk, rows, unknown)
        else:
            self.progress.skip(len(chunk.inputs))
        self.records.known |= dict.fromkeys(unknown, number + 1)

    def clean_pass(self, chunk: Chunk) -> slice:
        """Measure the unharmed examples, unless it was done; return where they stand in columns."""
        places, inputs, labels = chunk
        known = self.records.columns.get("index", places[:0])
        start = int((known < places[0]).sum())
        with self.progress.during("clean pass", len(labels)):
            if start == len(known):
                logits = self.clean_logits(inputs, labels)
                rejected = refused(self.model, logits)
                self.records.add(clean_columns(logits, labels, places, rejected))
                self.sample(chunk, logits.argmax(dim=1) == labels)
                if self.keep == "all":
                    unmoved = torch.zeros_like(labels, dtype=torch.float64)
                    self.show(0, chunk, inputs, logits.argmax(dim=1), unmoved, unmoved == 0)
        return slice(start, start + len(labels))

    def sample(self, chunk: Chunk, correct: Tensor) -> None:
        """Offer the examples to the few that the diagnosis looks at."""
        keys = example_keys(chunk.inputs, self.seed)
        kept = {
            "inputs": chunk.inputs,
            "labels": chunk.labels,
            "index": chunk.places.to(correct.device),
        }
        self.records.drawn.add(keys, **kept)
        right = {name: part[correct] for name, part in kept.items()}
        self.records.sample.add(keys[correct], **right)

    def attack_in_turn(self, chunk: Chunk, rows: slice, unknown: list[str]) -> None:
        """Run the attacks that have not seen a chunk; the verdicts on the others are known."""
        labels = chunk.labels
        correct = self.records.columns["predicted"][rows].to(labels.device) == labels
        surviving = correct.clone()
        clean = -self.records.columns["margin"][rows].to(labels.device)
        least = torch.full_like(clean, torch.inf)
        for name, spec in self.attacks.items():
            with self.progress.during(name, len(labels)):
                if name in unknown:
                    chosen = correct
                    if self.survivors_only:
                        chosen = surviving & worth_attacking(spec.near, least / clean)
                    self.run_attack(name, spec, chunk, chosen.nonzero().squeeze(1), surviving)
            surviving &= ~self.records.of(name, "fooled")[rows].to(labels.device)
            least = least.minimum(self.records.of(name, "lead")[rows].to(labels.device))

    def run_attack(
        self, name: str, spec: AttackSpec, chunk: Chunk, chosen: Tensor, surviving: Tensor
    ) -> None:
        """Run an attack on the ``chosen`` examples of a chunk, and keep what came of it."""
        places, inputs, labels = chunk
        own = Chunk(places[chosen.to(places.device)], inputs[chosen], labels[chosen])
        few = self.threat.of(places).of(chosen)
        found = self.attack(name, spec, own.inputs, own.labels, few)
        if found is None:
            nothing = torch.zeros_like(chosen[:0], dtype=torch.bool)
            chosen, verdict, silent = chosen[:0], Verdict.of_nothing(labels), nothing
        else:
            verdict, silent, points = found
            # Of each example the point of the first attack that fools it, or the last.
            kept = verdict.legal if self.keep == "all" else verdict.fooled
            place = list(self.attacks).index(name) + 1
            kept = kept & surviving[chosen]
            self.show(place, own, points, verdict.predicted, verdict.distance, kept)
        self.records.add(attack_columns(name, verdict, silent, chosen, len(labels)))

    def clean_logits(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Logits of the unharmed examples, checked."""
        dtype = dtype_of(self.model, inputs.dtype)
        with (
            self.accounted("clean pass"),
            layout_explained(self.model.model, inputs.to(dtype), self.spec.name),
        ):
            logits = logits_of(self.model, inputs, dtype, self.batch_size)
            if not len(self.records) and look_like_probabilities(logits):
                self.records.probabilities = True
                self.model.takes_logarithm = self.search.takes_logarithm = True
                logits = logits_of(self.model, inputs, dtype, self.batch_size)
        check_finite_output(logits, len(inputs))
        self.spec.check_classes(labels, n_classes_of(self.model, logits))
        self.captions.classes.check(logits.shape[1])
        return logits

    def examine(self, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> None:
        """Find out, once, what every attack has to know of the model."""
        if self.search.facts is not None:
            return
        check_reach(threat.epsilon, threat.norm, *threat.box(inputs), inputs)
        with self.accounted("checks"):
            self.records.facts = model_facts(
                self.search, inputs, labels, threat.bounds, threat.mask, self.seed
            )
        self.search.facts = self.records.facts

    def attack(
        self, name: str, spec: AttackSpec, inputs: Tensor, labels: Tensor, threat: ThreatModel
    ) -> tuple[Verdict, Tensor, Tensor] | None:
        """Attack some examples; judge what comes back, and what was found on the way.

        None where there is nothing to judge: no examples, or an error, which is written down and
        ends this attack's part in the evaluation, but not that of the others.
        """
        if not len(inputs) or name in self.records.errors:
            return None
        witness = Witness(self.model, inputs, labels, threat)
        self.search.observer = witness if self.search is self.model else None
        with self.accounted(name, f"attack {name!r}"):
            try:
                # Cloned, so that an attack that writes into its arguments harms nobody.
                attack = masked(spec.attack, threat.mask)
                adversarial = attack(self.search, inputs.clone(), labels.clone())
                check_points(name, adversarial, inputs)
            except NoGradientError as error:
                self.records.errors[name] = str(error)
            # An attack is foreign code, which may raise anything.
            except Exception as error:
                if ran_out_of_memory(error):
                    raise
                self.records.errors[name] = described(error)
                self.raised.setdefault(name, error)
            finally:
                self.search.observer = None
        if name in self.records.errors:
            return None
        with self.accounted("judging", f"judging of attack {name!r}", unseen=True):
            verdict = judge(
                self.model,
                name,
                adversarial,
                inputs,
                labels,
                threat=threat,
                own_norm=spec.norm,
                dtype=dtype_of(self.model, inputs.dtype),
                batch_size=self.batch_size,
            )
        return verdict, witness.fooled & ~verdict.fooled, adversarial.detach().to(inputs)

    @property
    def futile(self) -> bool:
        """Whether every attack raised an error before it had attacked anything."""
        raised = len(self.raised) == len(self.attacks)
        return raised and not any(
            bool(self.records.of(name, "attacked").any()) for name in self.attacks
        )

    def show(
        self,
        attack: int,
        chunk: Chunk,
        points: Tensor,
        predicted: Tensor,
        distance: Tensor,
        kept: Tensor,
    ) -> None:
        """Offer points to those that the report keeps; attacks count from 1, and 0 is none."""
        places, inputs, labels = (part[kept.to(part.device)] for part in chunk)
        # Of a few a sample that order and chunks do not change; of more each in its own place.
        few = self.keep == "few"
        offer = self.records.shown.add if few else self.records.shown.put
        offer(
            example_keys(inputs, self.seed) if few else places,
            index=places,
            inputs=inputs,
            adversarial=points[kept],
            labels=labels,
            predicted=predicted[kept],
            distance=distance[kept],
            attack=torch.full_like(labels, attack),
        )

    @contextmanager
    def accounted(
        self, part: str, told: str | None = None, *, unseen: bool = False
    ) -> Iterator[None]:
        """Borrow the model with the run's seed and write down what is spent meanwhile.

        What is raised gets a note of where that was, if ``told``. A randomised model is judged by
        draws ``unseen`` by any attack.
        """
        self.model.account.settled()
        began = time.perf_counter()
        where = noted(f"in evaluate's {told}") if told else nullcontext()
        seed = (self.seed + unseen) % 2**63
        with where, charged(self.model.account), borrowed(self.model, seed):
            yield
        spent, seconds = self.model.account.settled(), time.perf_counter() - began
        self.records.cost(part).add(spent.forwards, spent.backwards, seconds)
        if spent.stand_ins and part in self.attacks:
            known = self.records.stand_ins.get(part, ())
            self.records.stand_ins[part] = tuple(dict.fromkeys([*known, *spent.stand_ins]))


def worth_attacking(near: float | None, left: Tensor) -> Tensor:
    """Which examples a costly attack runs on, by the share of their clean lead that is left: (n,).

    Those near the boundary, and those on which no search got anywhere, which tells nothing of them.
    """
    return (
        torch.ones_like(left, dtype=torch.bool)
        if near is None
        else ~((left >= near) & (left <= STALLED))
    )


def clean_columns(
    logits: Tensor, labels: Tensor, places: Tensor, rejected: Tensor
) -> dict[str, Tensor]:
    """What the clean pass tells about each example."""
    predicted = logits.argmax(dim=1)
    others = torch.softmax(logits, dim=1).scatter(1, predicted[:, None], 0)
    return {
        "index": places,
        "label": labels,
        "predicted": predicted,
        "rejected": rejected,
        "margin": margin_loss(logits, labels).double(),
        "magnitude": logits.abs().double().mean(dim=1),
        "saturated": (others == 0).all(dim=1),
    }


def attack_columns(
    name: str, verdict: Verdict, silent: Tensor, chosen: Tensor, n: int
) -> dict[str, Tensor]:
    """A verdict on the chosen examples, spread over the whole chunk."""

    def spread(values: Tensor, empty: float) -> Tensor:
        return values.new_full((n,), empty).index_copy(0, chosen, values)

    return {
        f"{name}/attacked": spread(torch.ones_like(verdict.fooled), False),
        f"{name}/fooled": spread(verdict.fooled, False),
        f"{name}/rejected": spread(verdict.rejected, False),
        f"{name}/silent": spread(silent, False),
        f"{name}/success": spread(verdict.success, False),
        f"{name}/legal": spread(verdict.legal, True),
        f"{name}/distance": spread(verdict.distance, torch.nan),
        f"{name}/own_distance": spread(verdict.own_distance, torch.nan),
        f"{name}/lead": spread(verdict.lead, torch.inf),
    }
