"""Attacks again, through a model that is adapted to what the diagnosis found.

Each finding names what hides the way: the table ``REMEDIES`` says in which forms the model is
then attacked. Whatever an attack follows, its points are judged on the model as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .._data import Chunk, Examples
from .._modes import device_of, dtype_of
from .._processes import Processes
from .._typing import Attack, Model
from ._adaptations import adaptations
from ._adapted_forms import (
    FORMS,
    PART,
    SEARCH,
    TOWARDS,
    Form,
    Subject,
    all_at_hand,
)
from ._adapted_remedies import cannot_help, draws_numbers, forms_for, remembers
from ._errors import described, ran_out_of_memory
from ._judge import Verdict, judge
from ._ours import masked
from ._records import Cost, Records
from ._run import Run, attack_columns
from ._shards import combined_cost
from .diagnosis._findings import Finding
from .report._adaptation import Adaptation
from .report._rows import AttackRow, row, survivors


def adapt(
    run: Run,
    found: Iterable[Finding],
    data: Examples,
    chunk_size: int,
    surrogate: Model | None,
    processes: Processes,
) -> Adaptation | None:
    """Do what the findings name, and attack what is left; None where none names anything."""
    standing = survivors(run.records, list(run.attacks))
    standing[run.fooled_by_diagnosis] = False
    tried = {finding.code: forms_for(finding, run) for finding in found}
    helpless = [each.code for each in found if each.severity == "severe" and cannot_help(each)]
    failed = [f"no attack is adapted to {' and '.join(helpless)}"] if helpless else []
    codes = tuple(code for code, forms in tried.items() if forms)
    if not bool(standing.any()) or not (codes or failed):
        return None
    random = any(map(draws_numbers, found))
    told = (random, any(map(remembers, found)))
    subject = Subject(run, data, chunk_size, surrogate, processes, *told)
    asked = set().union(*tried.values())
    campaign = Campaign(subject, standing, failed)
    for form in FORMS:
        # A random model gives a search nothing to hold on to, at many draws a step.
        if form in asked and not (random and form in (TOWARDS, SEARCH)):
            campaign.attack(form)
    if codes:
        costs = processes.all_gather(run.records.cost(PART))
        run.records.costs[PART] = combined_cost(costs)
    return campaign.outcome(codes)


class Campaign:
    """Attacks on one form after another, each on what those before it have left."""

    def __init__(self, subject: Subject, standing: Tensor, failed: list[str]) -> None:
        self.subject, self.failed = subject, failed
        self.first = self.standing = standing
        self.attacked = torch.zeros_like(standing)
        self.remedies: list[str] = []
        self.rows: list[AttackRow] = []
        known = subject.run.records.columns
        self.records = Records()
        self.records.add({name: known[name] for name in ("label", "predicted")})

    def attack(self, form: Form) -> None:
        """Make a form of the model, if it has one, and attack it."""
        if int(self.standing.sum()) < form.least:
            return
        subject = self.subject
        try:
            model = form.made(subject)
        # The model is foreign code, which may raise anything.
        except Exception as error:
            if ran_out_of_memory(error):
                raise
            self.failed.append(f"{form.label}, the model raised {described(error)}")
            return
        if model is None:
            return
        model = subject.steady(model)
        before = int(self.standing.sum())
        for name, attack in form.attacks(subject).items():
            if bool(self.standing.any()):
                self.run(f"{name}, {form.label}", attack, model)
        fell = before - int(self.standing.sum())
        own = [form.own] if model is subject.base else []
        told = "; ".join([*own, *adaptations(model)]) or form.own
        self.remedies.append(f"{told}: {fell} of {before} fooled")

    def run(self, name: str, attack: Attack, model: Model) -> None:
        """Let every process attack its part of what is left, and put the parts together."""
        subject, n = self.subject, len(self.standing)
        part = attempted(subject, name, attack, model, self.standing)
        parts = subject.processes.all_gather(part)
        places = torch.cat([each.places for each in parts])
        verdicts = zip(*(each.verdict for each in parts), strict=True)
        verdict = Verdict(*map(torch.cat, verdicts))
        silent = torch.zeros_like(verdict.fooled)
        self.records.add(attack_columns(name, verdict, silent, places, n))
        self.records.costs[name] = combined_cost([each.cost for each in parts])
        errors = [each.error for each in parts if each.error is not None]
        if errors:
            self.records.errors[name] = errors[0]
        self.rows.append(row(self.records, name, subject.run.threat.norm, self.standing))
        self.attacked |= self.records.of(name, "attacked")
        self.standing = self.standing & ~self.records.of(name, "fooled")

    def outcome(self, codes: tuple[str, ...]) -> Adaptation:
        """All that the report holds."""
        return Adaptation(
            findings=codes,
            standing=int(self.first.sum()),
            attacked=int(self.attacked.sum()),
            fooled=int((self.first & ~self.standing).sum()),
            remedies=tuple(self.remedies),
            attacks=tuple(self.rows),
            failed=tuple(self.failed),
        )


class Part(NamedTuple):
    """What an attack made of the examples of a process."""

    places: Tensor
    verdict: Verdict
    cost: Cost
    error: str | None


def attempted(subject: Subject, name: str, attack: Attack, model: Model, standing: Tensor) -> Part:
    """Attack this process's part of what is left, and judge the points on the model itself."""
    run = subject.run
    before = replace(run.records.cost(PART))
    target, judged = subject.counted(model), run.model
    if subject.random or subject.remembers:
        # Of what a model remembers of the search nobody else knows.
        judged = subject.counted(subject.steady(subject.base))
    nowhere = torch.arange(0, device="cpu")
    places, verdicts, error = [nowhere], [Verdict.of_nothing(nowhere)], None
    for chunk in chunks_at_hand(subject, standing):
        threat = run.threat.of(chunk.places)
        x, labels = chunk.inputs, chunk.labels
        try:
            with run.accounted(PART):
                points = masked(attack, threat.mask)(target, x.clone(), labels.clone())
        except Exception as raised:
            if ran_out_of_memory(raised):
                raise
            error = described(raised)
            break
        with run.accounted(PART, unseen=True):
            verdict = judge(
                judged,
                name,
                points,
                x,
                labels,
                threat=threat,
                own_norm=threat.norm,
                dtype=dtype_of(run.model, x.dtype),
                batch_size=run.batch_size,
            )
        places.append(chunk.places)
        verdicts.append(Verdict(*(column.cpu() for column in verdict)))
    spent, after = Cost(), run.records.cost(PART)
    spent.add(
        after.forwards - before.forwards,
        after.backwards - before.backwards,
        after.seconds - before.seconds,
    )
    joined = Verdict(*map(torch.cat, zip(*verdicts, strict=True)))
    return Part(torch.cat(places), joined, spent, error)


def chunks_at_hand(subject: Subject, chosen: Tensor) -> Iterator[Chunk]:
    """The chosen examples of this process: of data that are read once, those of the sample."""
    run, processes = subject.run, subject.processes
    device = device_of(run.model, torch.device("cpu"))
    start = 0
    for chunk in all_at_hand(subject):
        rows = chosen[chunk.places].nonzero().squeeze(1)
        # Round robin over all examples, independent of the chunks.
        turn = torch.arange(start, start + len(rows), device="cpu")
        mine = rows[turn % processes.count == processes.rank]
        start += len(rows)
        if len(mine):
            inputs, labels = chunk.inputs[mine.to(chunk.inputs.device)], chunk.labels[mine]
            yield Chunk(chunk.places[mine], inputs.to(device), labels.to(device))
