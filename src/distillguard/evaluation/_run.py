"""One chunk after another: a clean pass, then each attack on the survivors."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._geometry import check_reach
from .._modes import borrowed, device_of, dtype_of
from .._random import example_keys
from .._validation import check_label_range, check_logits, look_like_probabilities
from ..attacks._engine import model_facts
from ..exceptions import NoGradientError
from ..functional import margin_loss
from ._judge import ThreatModel, Verdict, Witness, judge
from ._presets import AttackSpec, masked
from ._progress import Progress
from ._query import QueryCounter, logits_of
from ._records import Records
from ._stream import Chunk


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
    progress: Progress = field(default_factory=lambda: Progress(False, None))

    def __post_init__(self) -> None:
        self.model.takes_logarithm = self.records.probabilities
        self.model.facts = self.records.facts

    def add(self, chunk: Chunk) -> None:
        """Measure a chunk, keep its figures and drop its images."""
        if not len(chunk.inputs):
            return
        device = device_of(self.model, chunk.inputs.device)
        inputs, labels = chunk.inputs.to(device), chunk.labels.to(device)
        with self.progress.during("clean pass", len(labels)):
            logits = self.clean_logits(inputs, labels)
        correct = logits.argmax(dim=1) == labels
        columns = clean_columns(logits, labels, chunk.places)

        threat = self.threat.of(chunk.places)
        self.examine(inputs, labels, threat)
        surviving = correct.clone()
        for name, spec in self.attacks.items():
            chosen = (surviving if self.survivors_only else correct).nonzero().squeeze(1)
            few = threat.of(chosen)
            with self.progress.during(name, len(labels)):
                verdict, silent = self.attack(name, spec, inputs[chosen], labels[chosen], few)
            columns.update(attack_columns(name, verdict, silent, chosen, len(labels)))
            surviving &= ~columns[f"{name}/fooled"]

        self.records.add(columns)
        keys = example_keys(inputs, self.seed)
        index = columns["index"].to(correct.device)
        kept = {"inputs": inputs, "labels": labels, "index": index}
        self.records.drawn.add(keys, **kept)
        right = {name: part[correct] for name, part in kept.items()}
        self.records.sample.add(keys[correct], **right)

    def clean_logits(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Logits of the unharmed examples, checked."""
        dtype = dtype_of(self.model, inputs.dtype)
        with self.accounted("clean pass"):
            logits = logits_of(self.model, inputs, dtype, self.batch_size)
            if not len(self.records) and look_like_probabilities(logits):
                self.records.probabilities = self.model.takes_logarithm = True
                logits = logits_of(self.model, inputs, dtype, self.batch_size)
        check_logits(logits, len(inputs))
        check_label_range(labels, logits.shape[1])
        return logits

    def examine(self, inputs: Tensor, labels: Tensor, threat: ThreatModel) -> None:
        """Find out, once, what every attack has to know of the model."""
        if self.model.facts is not None:
            return
        check_reach(threat.epsilon, threat.norm, *threat.box(inputs), inputs)
        with self.accounted("checks"):
            self.records.facts = model_facts(
                self.model, inputs, labels, threat.bounds, threat.mask, self.seed
            )
        self.model.facts = self.records.facts

    def attack(
        self, name: str, spec: AttackSpec, inputs: Tensor, labels: Tensor, threat: ThreatModel
    ) -> tuple[Verdict, Tensor]:
        """Attack some examples; judge what comes back, and what was found on the way."""
        adversarial, witness = inputs, Witness(inputs, labels, threat)
        if len(inputs) and name not in self.records.errors:
            self.model.observer = witness
            with self.accounted(name):
                try:
                    # Cloned, so that an attack that writes into its arguments harms nobody.
                    attack = masked(spec.attack, threat.mask)
                    adversarial = attack(self.model, inputs.clone(), labels.clone())
                except NoGradientError as error:
                    self.records.errors[name] = str(error)
                finally:
                    self.model.observer = None
        with self.accounted("judging"):
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
        self.show(name, verdict, adversarial, inputs, labels)
        return verdict, witness.fooled & ~verdict.fooled

    def show(
        self, name: str, verdict: Verdict, adversarial: Tensor, inputs: Tensor, labels: Tensor
    ) -> None:
        """Offer the fooled examples to the few that the report displays."""
        fooled = verdict.fooled
        place = list(self.attacks).index(name)
        self.records.shown.add(
            example_keys(inputs[fooled], self.seed),
            inputs=inputs[fooled],
            adversarial=adversarial.detach().to(inputs)[fooled],
            labels=labels[fooled],
            predicted=verdict.predicted[fooled],
            distance=verdict.distance[fooled],
            attack=torch.full_like(labels[fooled], place),
        )

    @contextmanager
    def accounted(self, part: str) -> Iterator[None]:
        """Borrow the model with the run's seed and write down what is spent meanwhile."""
        self.model.spent()
        began = time.perf_counter()
        with borrowed(self.model, self.seed):
            yield
        self.records.cost(part).add(*self.model.spent(), time.perf_counter() - began)


def clean_columns(logits: Tensor, labels: Tensor, places: Tensor) -> dict[str, Tensor]:
    """What the clean pass tells about each example."""
    predicted = logits.argmax(dim=1)
    others = torch.softmax(logits, dim=1).scatter(1, predicted[:, None], 0)
    return {
        "index": places,
        "label": labels,
        "predicted": predicted,
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
        f"{name}/silent": spread(silent, False),
        f"{name}/success": spread(verdict.success, False),
        f"{name}/legal": spread(verdict.legal, True),
        f"{name}/distance": spread(verdict.distance, torch.nan),
        f"{name}/own_distance": spread(verdict.own_distance, torch.nan),
    }
