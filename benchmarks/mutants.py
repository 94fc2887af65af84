"""Deliberate faults, and which test catches each one.

    python -m benchmarks.mutants                        # every fault
    python -m benchmarks.mutants --only temperature     # those with this in the name

Each fault exchanges one piece of a source file in a temporary copy of ``src``, and the test files
most likely to notice are run against that copy until one fails. A survivor is a missing test.
To add a fault, append a row to :data:`FAULTS`: file, the text to exchange (it must occur exactly
once), its replacement, and where to look. ``--unharmed`` first runs those tests on an unharmed
copy, which must pass. Faults whose row is in the result file, with the same exchange, are taken
over from there under ``--keep``.
"""

import argparse
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import hypothesis.extra.numpy  # noqa: F401 - here and below: for the forks
import pytest
import scipy.optimize
import scipy.stats  # noqa: F401
import torch

from benchmarks._common import circumstances, load, save, table

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """One exchange in one file under ``src/distillguard``, and the tests to ask."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    """Test files under ``tests``, the likeliest first."""
    only: str = ""
    """pytest's ``-k``, where the files are long."""


CONTRACT = "test_attacks_contract.py"
CPU_SECONDS = 150
"""For one fault; the longest test file needs about a third of it."""

FAULTS = [
    # The attack loop.
    Fault(
        "last iterate unjudged",
        "attacks/_pgd.py",
        "over = (state.run == self.restarts - 1) & (state.step > last)",
        "over = (state.run == self.restarts - 1) & (state.step >= last)",
        ("test_pgd.py", CONTRACT),
    ),
    Fault(
        "ranking by the driving loss",
        "attacks/_pgd.py",
        "margin = success_margin(logits, state.examples, self.targeted).to(state.best_margin)",
        "margin = self.loss(logits, state.examples.labels).to(state.best_margin)",
        ("test_pgd.py", CONTRACT),
    ),
    Fault(
        "later iterates replace better ones",
        "attacks/_pgd.py",
        "better = margin > state.best_margin",
        "better = margin > -torch.inf",
        ("test_pgd.py", CONTRACT),
    ),
    Fault(
        "early stop forgotten",
        "attacks/_pgd.py",
        "return over | (state.best_margin > 0) if self.early_stop else over",
        "return over",
        ("test_engine.py", "test_pgd.py"),
    ),
    Fault(
        "a tie taken for a success",
        "attacks/_pgd.py",
        "over | (state.best_margin > 0) if self.early_stop",
        "over | (state.best_margin >= 0) if self.early_stop",
        ("test_pgd.py",),
    ),
    Fault(
        "the last iterate judged all the same",
        "attacks/_pgd.py",
        "last = self.steps if self.judge_last else self.steps - 1",
        "last = self.steps",
        ("test_pgd.py",),
    ),
    Fault(
        "restarts all alike",
        "attacks/_pgd.py",
        "current=select(again, self._first_iterate(state.examples, run), state.current),",
        "current=select(again, self._first_iterate(state.examples, 0 * run), state.current),",
        ("test_pgd.py",),
    ),
    Fault(
        "momentum kept over a restart",
        "attacks/_pgd.py",
        "velocity=select(again, torch.zeros_like(state.velocity), state.velocity),",
        "velocity=state.velocity,",
        ("test_pgd.py",),
    ),
    Fault(
        "momentum of gradients not normalised",
        "attacks/_pgd.py",
        "gradient = self.momentum * state.velocity + unit",
        "gradient = self.momentum * state.velocity + gradient",
        ("test_pgd.py",),
    ),
    Fault(
        "l1 steps into pixels that the bounds hold",
        "_l1.py",
        "most = torch.minimum(_room(slope, points, low, high), length / _column(spread, slope))",
        "most = (length / _column(spread, slope)).expand_as(slope)",
        ("test_l1.py",),
    ),
    Fault(
        "steps shrink one too early",
        "attacks/_pgd.py",
        "left = 1 - (state.step - 1).clamp(max=self.steps) / self.steps",
        "left = 1 - state.step.clamp(max=self.steps) / self.steps",
        ("test_pgd.py",),
    ),
    Fault(
        "block starts all alike",
        "attacks/_pgd.py",
        "length * examples.sample_blocks(run)",
        "length * examples.sample_blocks(0 * run)",
        ("test_pgd.py",),
    ),
    Fault(
        "block starts dotted",
        "_geometry.py",
        "places = torch.arange(side, device=like.device) * few // side",
        "places = torch.arange(side, device=like.device) * few % side % few",
        ("test_pgd.py",),
    ),
    Fault(
        "FGSM from a random start",
        "attacks/_fgsm.py",
        "random_start=False,",
        "random_start=True,",
        ("test_pgd.py", CONTRACT),
        only="fgsm",
    ),
    Fault(
        "targeted sign of the loss",
        "attacks/_losses.py",
        "return (lambda logits, labels: -chosen(logits, labels)) if targeted else chosen",
        "return chosen",
        (CONTRACT,),
        only="target",
    ),
    Fault(
        "targeted sign of success",
        "attacks/_losses.py",
        "return (-margin if targeted else margin) - doubt",
        "return margin - doubt",
        (CONTRACT,),
        only="target",
    ),
    # The engine.
    Fault(
        "random start keyed by place, not by example",
        "attacks/_engine.py",
        "keys = key_of_copy(example_keys(inputs, seed), labels.to(inputs.device))",
        "keys = torch.arange(len(inputs)) * 7919 + seed",
        ("test_engine.py", CONTRACT),
    ),
    Fault(
        "results put where the batch has them",
        "attacks/_engine.py",
        "adversarial[places[finished]] = result",
        "adversarial[finished] = result",
        ("test_engine.py",),
    ),
    Fault(
        "decided examples keep their place",
        "attacks/_engine.py",
        "fresh = torch.arange(following, min(following + len(finished), len(inputs)))",
        "fresh = torch.arange(0)",
        ("test_engine.py",),
    ),
    Fault(
        "gradient averaged over the batch",
        "attacks/_engine.py",
        "outputs(logits, examples.labels).sum(dim=0).unbind()",
        "outputs(logits, examples.labels).mean(dim=0).unbind()",
        ("test_engine.py",),
    ),
    Fault(
        "gradient that misses the input",
        "attacks/_engine.py",
        "allow_unused=True",
        "allow_unused=False",
        ("test_validation.py",),
    ),
    Fault(
        "inputs overwritten by results",
        "attacks/_engine.py",
        "adversarial = inputs.clone()",
        "adversarial = inputs",
        (CONTRACT,),
        only="changes_neither",
    ),
    Fault(
        "margins compared in half precision",
        "attacks/_engine.py",
        "return _in_single(logits)",
        "return logits",
        ("test_engine.py",),
    ),
    Fault(
        "points held in half precision",
        "attacks/_engine.py",
        "inputs=_in_single(moved.inputs)",
        "inputs=moved.inputs",
        ("test_engine.py",),
    ),
    Fault(
        "points asked about in single precision",
        "attacks/_engine.py",
        "points.to(self.given).to(self.dtype",
        "points.to(self.dtype",
        ("test_engine.py",),
    ),
    Fault(
        "the model may write into the points",
        "attacks/_engine.py",
        "(self.dtype, copy=True)",
        "(self.dtype)",
        ("test_numerics.py",),
        "in_place",
    ),
    Fault(
        "infinite slopes handed on",
        "attacks/_engine.py",
        "_finite(check_gradient(each))",
        "check_gradient(each)",
        ("test_numerics.py",),
        "without_end",
    ),
    Fault(
        "squares of lengths leave the dtype",
        "_geometry.py",
        'if norm != "l2" or _squares_fit(length)',
        'if norm != "l2" or len(length) >= 0',
        ("test_numerics.py",),
        "scale",
    ),
    Fault(
        "labels not held against the classes",
        "attacks/_engine.py",
        "check_label_range(self.labels, n_classes_of(self.model, answers[0]))",
        "pass",
        ("test_validation.py",),
    ),
    Fault(
        "a rejected point taken for a success",
        "_rejection.py",
        "return merge_rejection(logits, labels) if rejects(model) else logits",
        "return logits",
        ("test_rejection.py",),
    ),
    Fault(
        "thresholds without the correction for a finite sample",
        "estimators/_calibration.py",
        "math.ceil((1 - rate) * (n + 1))",
        "math.ceil((1 - rate) * n - 1)",
        ("test_defenses.py",),
    ),
    Fault(
        "false alarms counted where the thresholds were set",
        "defenses/_layered.py",
        "rest = inputs[order[middle:]]",
        "rest = inputs[order[:middle]]",
        ("test_defenses.py",),
    ),
    Fault(
        "a layer's clamp hides the gradient",
        "defenses/_layer.py",
        "return lent(values, back) if wants_gradient(back) else values",
        "return values",
        ("test_defenses.py",),
    ),
    Fault(
        "probabilities let through",
        "_validation.py",
        "if look_like_probabilities(logits):",
        "if False:",
        ("test_validation.py",),
    ),
    Fault(
        "bounds compared in float64",
        "_boxes.py",
        "values = torch.as_tensor(bound, dtype=like.dtype, device=like.device)",
        "values = torch.as_tensor(bound, device=like.device).to(like)",
        ("test_validation.py",),
    ),
    Fault(
        "NaN in the inputs let through",
        "_boxes.py",
        "if not (math.isfinite(least) and math.isfinite(most)):",
        "if False:",
        ("test_validation.py",),
    ),
    # Borrowing.
    Fault(
        "modes not restored",
        "_modes.py",
        "            _set_mode(part, mode)\n\n\ndef _changed",
        "            pass\n\n\ndef _changed",
        ("test_modes.py", CONTRACT),
    ),
    Fault(
        "only the outermost mode restored",
        "_modes.py",
        "            _set_mode(part, mode)\n\n\ndef _changed",
        "            module.train(modes[0][1])\n\n\ndef _changed",
        ("test_modes.py", CONTRACT),
    ),
    Fault(
        "requires_grad not restored",
        "_modes.py",
        "parameter.requires_grad_(requires_grad)",
        "pass",
        ("test_modes.py", CONTRACT),
    ),
    Fault(
        "attacked in train mode",
        "_modes.py",
        "module.eval()",
        "pass",
        ("test_modes.py", CONTRACT),
    ),
    Fault(
        "gradients left off",
        "_modes.py",
        "torch.inference_mode(False),\n        torch.set_grad_enabled(gradients),",
        "nullcontext(),",
        ("test_modes.py", CONTRACT),
    ),
    Fault(
        "global random state not isolated",
        "_modes.py",
        "with one_at_a_time(), torch.random.fork_rng(devices=_indices(devices)):",
        "with one_at_a_time():",
        ("test_modes.py", CONTRACT),
    ),
    # Geometry and randomness.
    Fault(
        "projection forgotten",
        "_geometry.py",
        "clamped(inputs + ball(lp(norm)).project(candidate - inputs, epsilon), low, high)",
        "clamped(candidate, low, high)",
        ("test_pgd.py", CONTRACT),
    ),
    Fault(
        "clamp forgotten",
        "_geometry.py",
        "clamped(inputs + ball(lp(norm)).project(candidate - inputs, epsilon), low, high)",
        "inputs + ball(lp(norm)).project(candidate - inputs, epsilon)",
        (CONTRACT,),
        only="bounds",
    ),
    Fault(
        "epsilon doubled",
        "_geometry.py",
        "ball(lp(norm)).project(candidate - inputs, epsilon)",
        "ball(lp(norm)).project(candidate - inputs, 2 * epsilon)",
        ("test_pgd.py", CONTRACT),
    ),
    Fault(
        "NaN at zero gradient",
        "_geometry.py",
        "return torch.where(largest > 0, scaled / length, 0)",
        "return scaled / length",
        ("test_geometry.py", CONTRACT),
    ),
    Fault(
        "tiny gradients underflow",
        "_geometry.py",
        "scaled = torch.where(largest > 0, gradient / largest, 0)",
        "scaled = gradient",
        ("test_geometry.py",),
    ),
    Fault(
        "batch-wide norm",
        "_geometry.py",
        'length = per_example(lp_norm(scaled, "l2"), gradient)',
        "length = scaled.norm()",
        ("test_geometry.py", CONTRACT),
    ),
    Fault(
        "l1 threshold off by one",
        "_l1.py",
        "count.gather(1, before).clamp(min=1)",
        "(count.gather(1, before) + 1)",
        ("test_l1.py",),
    ),
    Fault(
        "l2 samples crowd the centre",
        "_geometry.py",
        "share ** (1 / free.sum(dim=1, keepdim=True).double())",
        "share",
        ("test_geometry.py",),
    ),
    Fault(
        "linf samples of one sign",
        "_geometry.py",
        "_only(free, (2 * flat - 1).view_as(like))",
        "_only(free, flat.view_as(like))",
        ("test_geometry.py",),
    ),
    Fault(
        "keys blind to the order of pixels",
        "_random.py",
        "_mix(part.long() + place).sum(dim=1)",
        "_mix(part.long()).sum(dim=1)",
        ("test_random.py",),
    ),
    Fault(
        "arithmetic shift for the logical",
        "_random.py",
        "return (z >> places) & (2 ** (64 - places) - 1)",
        "return z >> places",
        ("test_random.py",),
    ),
    Fault(
        "normal numbers of half the variance",
        "_random.py",
        "radius = (-2 * torch.log1p(-radius)).sqrt()",
        "radius = (-torch.log1p(-radius)).sqrt()",
        ("test_random.py",),
    ),
    # The losses.
    Fault(
        "temperature dropped",
        "functional/_losses.py",
        "keepdim=True)) / temperature",
        "keepdim=True))",
        ("test_functional.py",),
    ),
    Fault(
        "largest logit not subtracted",
        "functional/_losses.py",
        "return (logits - logits.detach().amax(dim=1, keepdim=True)) / temperature",
        "return logits.exp().log() / temperature",
        ("test_functional.py", "test_properties.py"),
    ),
    Fault(
        "factor temperature squared dropped",
        "functional/_losses.py",
        "soft = temperature**2 * soft_cross_entropy",
        "soft = soft_cross_entropy",
        ("test_functional.py",),
    ),
    Fault(
        "gradient into the teacher",
        "functional/_losses.py",
        "softmax(teacher_logits.detach(), temperature)",
        "softmax(teacher_logits, temperature)",
        ("test_functional.py",),
    ),
    Fault(
        "NaN at a target of zero",
        "functional/_losses.py",
        "terms.masked_fill(soft_targets == 0, 0)",
        "terms",
        ("test_functional.py",),
    ),
    Fault(
        "mask-multiplied margin",
        "functional/_losses.py",
        "others = logits.scatter(1, labelled, -math.inf)",
        "others = logits.scatter(1, labelled, 0.0)",
        ("test_functional.py",),
    ),
    Fault(
        "DLR over the first two logits",
        "functional/_losses.py",
        "first, _, third = logits.topk(3, dim=1).values.unbind(dim=1)",
        "first, third, _ = logits.topk(3, dim=1).values.unbind(dim=1)",
        ("test_functional.py",),
    ),
    Fault(
        "label -100 left out in silence",
        "functional/_losses.py",
        "return -torch.log_softmax(logits, dim=1).gather(1, labels[:, None]).squeeze(1)",
        'return torch.nn.functional.cross_entropy(logits, labels, reduction="none")',
        ("test_functional.py",),
    ),
    # The house.
    Fault(
        "upward import",
        "_geometry.py",
        "from ._random import normal, uniform",
        "from ._random import normal, uniform\n\n\ndef _late():\n    from .attacks import pgd",
        ("test_architecture.py",),
    ),
    # Training and the distiller.
    Fault(
        "teacher trained at temperature 1",
        "estimators/_defensive.py",
        "objective = hard_label_objective(self.temperature, self.label_smoothing)",
        "objective = hard_label_objective(1.0, self.label_smoothing)",
        ("test_distiller.py",),
    ),
    Fault(
        "soft labels at temperature 1",
        "estimators/_defensive.py",
        "targets = functional.softmax(taught, temperature)",
        "targets = functional.softmax(taught, 1.0)",
        ("test_distiller.py",),
    ),
    Fault(
        "T squared forgotten beside hard labels",
        "functional/_losses.py",
        "soft = temperature**2 * soft_cross_entropy(",
        "soft = soft_cross_entropy(",
        ("test_functional.py", "test_distiller.py"),
    ),
    Fault(
        "the caller's module trained in place",
        "networks/_builders.py",
        "return copied(unwrapped(module))",
        "return unwrapped(module)",
        ("test_distiller.py",),
    ),
    Fault(
        "last layer not multiplied at the start",
        "training/_scaled_head.py",
        "getattr(owner, weight).mul_(factor)",
        "getattr(owner, weight).mul_(1.0)",
        ("test_training.py",),
    ),
    Fault(
        "a head is tried near 0 only",
        "training/_scaled_head.py",
        "_TRIED = (1.5, 1024.0)",
        "_TRIED = (1.5, 2.0)",
        ("test_training.py",),
    ),
    Fault(
        "a head may share its weights",
        "training/_scaled_head.py",
        "if not _shared(network, head) and all(",
        "if all(",
        ("test_training.py",),
    ),
    Fault(
        "means of BatchNorm taken for nothing",
        "training/_scaled_head.py",
        "chain(network.parameters(), network.buffers())",
        "network.parameters()",
        ("test_training.py",),
    ),
    Fault(
        "networks in training work on the caller's inputs",
        "training/_asked.py",
        "self.module(inputs.clone())",
        "self.module(inputs)",
        ("test_any_network.py",),
    ),
    Fault(
        "a buffer that is used again taken for an answer",
        "training/_asked.py",
        "return output.clone()",
        "return output",
        ("test_any_network.py",),
    ),
    Fault(
        "the layout not tried in training mode",
        "training/_layout.py",
        "    _there_and_back(network.train(), inputs)\n",
        "",
        ("test_any_network.py",),
    ),
    Fault(
        "another layout may compute something else",
        "training/_layout.py",
        "<= 0.01 * expected",
        "<= 1e9 * expected",
        ("test_any_network.py",),
    ),
    Fault(
        "a batch of one in the middle is lost",
        "_data/_sources.py",
        "            yield before\n            yield batch\n            before = after\n",
        "            yield before\n            before = after\n",
        ("test_any_network.py",),
    ),
    Fault(
        "weights that diverged kept",
        "training/_loop.py",
        "            network.load_state_dict(good)\n",
        "",
        ("test_distiller.py",),
    ),
    Fault(
        "live weights kept after a divergence",
        "training/_loop.py",
        "        with self.averaged():\n            good = deepcopy",
        "        if True:\n            good = deepcopy",
        ("test_distiller.py",),
        "diverg",
    ),
    Fault(
        "an epoch as good as the best is taken",
        "training/_loop.py",
        "if value < self.best:",
        "if value <= self.best:",
        ("test_callbacks.py",),
        "as_good_as",
    ),
    Fault(
        "best weights of early stopping not put back",
        "training/_loop.py",
        "            self.network.load_state_dict(self.plan.stopping.weights)\n",
        "            pass\n",
        ("test_distiller.py",),
    ),
    # Long runs.
    Fault(
        "epochs not seeded afresh",
        "training/_loop.py",
        "        reseed(self.runtime.cuda, _seed(plan.seed, plan.stage, number))\n",
        "",
        ("test_long_runs.py",),
    ),
    Fault(
        "optimiser's state not put back",
        "training/_loop.py",
        '            "optimizer": self.optimizer,\n',
        "",
        ("test_long_runs.py",),
    ),
    Fault(
        "schedule not put back",
        "training/_loop.py",
        '            "scheduler": self.scheduler,\n',
        "",
        ("test_long_runs.py",),
    ),
    Fault(
        "average not put back",
        "training/_loop.py",
        '            "average": self.average,\n',
        "",
        ("test_long_runs.py",),
    ),
    Fault(
        "early stopping not put back",
        "training/_loop.py",
        '            "stopping": self.plan.stopping,\n',
        "",
        ("test_long_runs.py",),
    ),
    Fault(
        "the loader's generator not put back",
        "training/_loop.py",
        "            generator.set_state(stored)\n",
        "            pass\n",
        ("test_long_runs.py",),
    ),
    Fault(
        "digest not compared",
        "training/_checkpoints.py",
        "if hashlib.sha256(payload).digest() != digest:",
        "if False:",
        ("test_long_runs.py",),
    ),
    Fault(
        "checkpoints may run code",
        "training/_checkpoints.py",
        "weights_only=True",
        "weights_only=False",
        ("test_long_runs.py",),
    ),
    Fault(
        "checkpoint of another run taken",
        "training/_checkpoints.py",
        'if found["run"] != self.stored["run"]:',
        "if False:",
        ("test_long_runs.py",),
    ),
    Fault(
        "checkpoint of another epoch taken",
        "training/_checkpoints.py",
        'if (found["stage"], found["epoch"]) != (stage, number):',
        "if False:",
        ("test_long_runs.py",),
    ),
    Fault(
        "labels ignored on resume",
        "training/_run_identity.py",
        "batch._replace(indices=None)",
        "batch._replace(indices=None, labels=None)",
        ("test_long_runs.py",),
    ),
    Fault(
        "settings of a run told by their types",
        "training/_run_identity.py",
        "Describer()(_number(value)) for name, value in parameters.items()",
        "type(value).__name__ for name, value in parameters.items()",
        ("test_long_runs.py",),
    ),
    Fault(
        "NumPy's numbers as Python's in checkpoints",
        "training/_checkpoints.py",
        'return {_NUMPY: part.dtype.str, "value": value}',
        "return value",
        ("test_long_runs.py",),
    ),
    Fault(
        "states written that cannot be read",
        "training/_checkpoints.py",
        "if kind not in self._readable and not _is_readable(part):",
        "if False:",
        ("test_long_runs.py",),
    ),
    Fault(
        "initial weights of the run not taken",
        "estimators/_run.py",
        "                network.load_state_dict(stored[name])\n",
        "                pass\n",
        ("test_long_runs.py",),
    ),
    Fault(
        "seed of the run not taken",
        "estimators/_classifier.py",
        "                seed = checkpoints.seed\n",
        "                seed = None\n",
        ("test_long_runs.py",),
    ),
    # Saves.
    Fault(
        "a network that answers otherwise loaded",
        "persistence/_answers.py",
        "if not apart <= _allowed(dtype) * largest:",
        "if False:",
        ("test_persistence.py",),
    ),
    Fault(
        "a stranger's weights swept",
        "persistence/_folder.py",
        'elif re.fullmatch(WEIGHTS.strip("^$") + UNFINISHED, path.name):',
        'elif re.match(WEIGHTS.strip("^$"), path.name) and path.name not in kept:',
        ("test_persistence.py",),
    ),
    Fault(
        "a link written through",
        "_files.py",
        "target = Path(os.path.realpath(path)) if follow_links else Path(path)",
        "target = Path(os.path.realpath(path))",
        ("test_files.py",),
    ),
    Fault(
        "a damaged count believed",
        "datasets/_image_files.py",
        "file.read(min(_PIECE, size + 1 - len(content)))",
        "file.read(size + 1 - len(content))",
        ("test_datasets.py",),
    ),
    # Averages, validation, processes.
    Fault(
        "decay without its warm-up",
        "training/_average.py",
        "decay = min(self.decay, (1 + self.updates) / (10 + self.updates))",
        "decay = self.decay",
        ("test_callbacks.py",),
    ),
    Fault(
        "average not taken at the end",
        "training/_loop.py",
        "            self.average.exchange()\n",
        "            pass\n",
        ("test_callbacks.py",),
    ),
    Fault(
        "validation scored by the training examples' soft labels",
        "training/_loop.py",
        "batch._replace(indices=None)",
        "batch",
        ("test_callbacks.py",),
    ),
    Fault(
        "gradient not clipped",
        "training/_runtime.py",
        "max_norm=norm,",
        "max_norm=1e9,",
        ("test_callbacks.py",),
    ),
    Fault(
        "student trained on X in spite of a transfer set",
        "estimators/_defensive.py",
        "            if transfer is not None:\n",
        "            if False:\n",
        ("test_callbacks.py",),
    ),
    Fault(
        "parts of a batch weigh the same whatever their size",
        "training/_runtime.py",
        "return _rows(batch, torch.arange(rank, n, count)), count / n",
        "return (part := _rows(batch, torch.arange(rank, n, count))), 1 / len(part.labels)",
        ("test_processes.py",),
    ),
    Fault(
        "buffers differ between processes",
        "training/_runtime.py",
        "                distributed.broadcast(buffer, src=0)\n",
        "                pass\n",
        ("test_processes.py",),
    ),
    Fault(
        "each process draws its own seed",
        "estimators/_classifier.py",
        "seed = runtime.processes.broadcast(drawn if seed is None else seed)",
        "seed = drawn if seed is None else seed",
        ("test_processes.py",),
    ),
    # Robust training.
    Fault(
        "divergence from the student instead of from the target",
        "functional/_robust_losses.py",
        "return (log_p.exp() * (log_p - log_q)).sum(dim=1)",
        "return (log_q.exp() * (log_q - log_p)).sum(dim=1)",
        ("test_robust.py",),
    ),
    Fault(
        "divergence averaged over the classes",
        "functional/_robust_losses.py",
        "return (log_p.exp() * (log_p - log_q)).sum(dim=1)",
        "return (log_p.exp() * (log_p - log_q)).mean(dim=1)",
        ("test_robust.py",),
    ),
    Fault(
        "ARD without the square of the temperature",
        "functional/_robust_distillation_losses.py",
        "soft = temperature**2 * kl",
        "soft = kl",
        ("test_robust.py",),
    ),
    Fault(
        "AdaAD's teacher asked at the clean inputs",
        "functional/_robust_distillation_losses.py",
        "adversarial = kl_divergence(adversarial_logits, teacher_adversarial_logits)",
        "adversarial = kl_divergence(adversarial_logits, teacher_logits)",
        ("test_robust.py",),
    ),
    Fault(
        "IAD's trust from the clean inputs",
        "functional/_robust_distillation_losses.py",
        "right = torch.softmax(teacher_adversarial_logits, dim=1)",
        "right = torch.softmax(teacher_logits, dim=1)",
        ("test_robust.py",),
    ),
    Fault(
        "MART without its boost",
        "functional/_robust_losses.py",
        "return -right - rest + beta",
        "return -right + beta",
        ("test_robust.py",),
    ),
    Fault(
        "inner attack leaves the ball",
        "training/_inner.py",
        "points = project_to_budget(points + step, inputs, *budget)",
        "points = (points + step).clamp(*self.bounds)",
        ("test_robust.py",),
    ),
    Fault(
        "inner attack descends",
        "training/_inner.py",
        "step = ascent_step(points, gradient,",
        "step = -ascent_step(points, gradient,",
        ("test_robust.py",),
    ),
    Fault(
        "BatchNorm's statistics follow the attack",
        "training/_inner.py",
        "                layer.track_running_stats = False\n",
        "                pass\n",
        ("test_robust.py",),
    ),
    Fault(
        "weights perturbed downhill",
        "training/_inner.py",
        "weight + size * weight.detach()",
        "weight - size * weight.detach()",
        ("test_robust.py",),
    ),
    Fault(
        "extra examples start anew in every epoch",
        "_data/_mixed.py",
        "more = self._from((number - 1) * (self.n_batches or 0))",
        "more = self._from(0)",
        ("test_robust.py",),
    ),
    Fault(
        "bounds of the data not kept",
        "estimators/_adversary.py",
        "return min(extremes), max(extremes)",
        "return -1e9, 1e9",
        ("test_robust.py",),
    ),
    Fault(
        "RSLAD's weights exchanged",
        "functional/_robust_distillation_losses.py",
        "return (1 - alpha) * clean + alpha * kl",
        "return alpha * clean + (1 - alpha) * kl",
        ("test_robust.py",),
    ),
    # The scaling laws, and what targeted attacks do while they have nothing.
    Fault(
        "a run forgets the reach of the failed one before",
        "attacks/carlini_wagner/_multi_target.py",
        "torch.where(distance.isinf(), state.boundary_distance, distance)",
        "torch.where(distance.isinf(), LEAST_REACH * self.farthest(state.inputs), distance)",
        ("test_numerics.py",),
        "foretells",
    ),
    Fault(
        "reach stays while nothing is reached",
        "attacks/carlini_wagner/_multi_target.py",
        "GROWTH = 8, 1.3",
        "GROWTH = 8, 1.0",
        ("test_carlini_wagner.py",),
        "face_each_other",
    ),
    Fault(
        "L0 takes no change back alone",
        "attacks/carlini_wagner/_l0.py",
        "DESCENT = 0.6",
        "DESCENT = 1.0",
        ("test_carlini_wagner.py",),
        "l0",
    ),
    Fault(
        "a change just taken back makes room for itself",
        "attacks/carlini_wagner/_prune.py",
        "masked_fill(trial.importance.isfinite(), -1)",
        "masked_fill(trial.allowed, -1)",
        ("test_carlini_wagner.py",),
        "room",
    ),
    Fault(
        "default steps of PGD stay equal",
        "attacks/_pgd.py",
        "step_decay = step_size is None",
        "step_decay = False",
        ("test_pgd.py",),
        "steps",
    ),
    Fault(
        "PGD stays where it has no slope",
        "attacks/_pgd.py",
        'self._redraw(state._replace(current=ahead), lp_norm(step, "linf") == 0)',
        "state._replace(current=ahead)",
        ("test_pgd.py",),
        "slope",
    ),
    Fault(
        "PGD draws the same point again where it has no slope",
        "attacks/_pgd.py",
        "draw = state.run + self.restarts * state.step",
        "draw = state.run",
        ("test_pgd.py",),
        "slope",
    ),
    Fault(
        "PGD's new draws are those of its next restart",
        "attacks/_pgd.py",
        "draw = state.run + self.restarts * state.step",
        "draw = state.run + state.step",
        ("test_pgd.py",),
        "slope",
    ),
    Fault(
        "PGD draws other points against the caller's will",
        "attacks/_pgd.py",
        "redraw=redraw and bool(random_start)",
        "redraw=bool(random_start)",
        ("test_pgd.py",),
        "slope",
    ),
    Fault(
        "another batch holds nothing else",
        "evaluation/diagnosis/_stability.py",
        "[asked.flip(0), mirrored.flip(0)]",
        "[asked.flip(0), asked.flip(0)]",
        ("test_masking.py",),
        "by_its_batch",
    ),
    Fault(
        "gradients of NaN count as gradients",
        "evaluation/diagnosis/_gradients.py",
        "((flat == 0) | flat.isnan())",
        "(flat == 0)",
        ("test_masking.py",),
        "not_defined",
    ),
    Fault(
        "a softmax inside the model taken for flatness",
        "evaluation/diagnosis/_rules_model.py",
        "INNER_UNDERFLOW if double is not None and double < count / 2 else FLAT",
        "FLAT",
        ("test_masking.py",),
        "inside_the_model",
    ),
    Fault(
        "diagnosis lets PGD draw random points",
        "evaluation/diagnosis/_probe.py",
        "steps=steps or self.steps, redraw=False, **budget",
        "steps=steps or self.steps, **budget",
        ("test_masking.py",),
    ),
    Fault(
        "PGD starts anew on a flat spot in spite of its momentum",
        "attacks/_pgd.py",
        'lp_norm(step, "linf") == 0',
        'lp_norm(unit if self.momentum else step, "linf") == 0',
        ("test_pgd.py",),
        "momentum",
    ),
    Fault(
        "FAB draws a gradient where it only retreats",
        "attacks/_fab_targeted.py",
        "forward_only=~retreat & (state.retreated | (step >= self.steps))",
        "forward_only=~retreat & (step >= self.steps)",
        ("test_fab.py",),
    ),
    Fault(
        "FAB ends a run at a success that stays",
        "attacks/_fab_targeted.py",
        "idle = ~retreat & (lp_norm",
        "idle = (lp_norm",
        ("test_fab.py",),
    ),
    Fault(
        "FAB retreats twice",
        "attacks/_fab_targeted.py",
        "retreat = (margin > 0) & ~state.retreated",
        "retreat = margin > 0",
        ("test_fab.py",),
    ),
    Fault(
        "linf limit beyond the bounds",
        "attacks/carlini_wagner/_linf.py",
        "limit = limit.minimum(state.examples.scale)",
        "limit = limit * 1",
        ("test_carlini_wagner.py",),
        "nothing_is_found",
    ),
    Fault(
        "optimal size without the exponents' ratio",
        "scaling_laws/_parametric.py",
        "(self.alpha * self.A / (self.beta * b)) ** (1 / total)",
        "(self.A / b) ** (1 / total)",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "size and data exchange exponents",
        "scaling_laws/_parametric.py",
        "product ** (self.beta / total)",
        "product ** (self.alpha / total)",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "quality without the one",
        "scaling_laws/_parametric.py",
        "quality = (1 + self._fid(fid)) / (1 + self.reference_fid)",
        "quality = (1 + self._fid(fid)) / (2 + self.reference_fid)",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "slope of the data term by size",
        "scaling_laws/_parametric.py",
        "-w[1] * by_data, w[1]",
        "-w[1] * by_size, w[1]",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "errors never count linearly",
        "scaling_laws/_fitting.py",
        "slope = np.clip(errors / self.delta, -1, 1)",
        "slope = errors / self.delta",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "flat directions are not seen",
        "scaling_laws/_fitting.py",
        "flat = values <= 1e-11 * values[-1]",
        "flat = values == np.inf",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "checkpoints resampled apart",
        "scaling_laws/_fitting.py",
        "groups = np.arange(len(runs)) if runs.run is None else runs.run",
        "groups = np.arange(len(runs))",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "every curve in every resample",
        "scaling_laws/_lower_envelope.py",
        "group if weights is None else group[weights > 0]",
        "group",
        ("test_scaling_laws.py",),
        "resample",
    ),
    Fault(
        "interval with one tail",
        "scaling_laws/_fit.py",
        "[(1 - level) / 2, (1 + level) / 2]",
        "[1 - level, level]",
        ("test_scaling_laws.py",),
        "interval",
    ),
    Fault(
        "bootstrap's reach with one tail",
        "scaling_laws/_fitting.py",
        "tails = [(1 - confidence) / 2, (1 + confidence) / 2]",
        "tails = [1 - confidence, confidence]",
        ("test_scaling_laws.py",),
        "interval",
    ),
    Fault(
        "accuracy line of all runs in every resample",
        "scaling_laws/_fitting.py",
        "np.polyfit(runs.loss, runs.accuracy, 1, w=root)",
        "np.polyfit(runs.loss, runs.accuracy, 1)",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "held coefficients are fitted",
        "scaling_laws/_fitting.py",
        "self.free = np.isnan(held)",
        "self.free = np.isnan(held) | True",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "envelope keeps what does not improve",
        "scaling_laws/_lower_envelope.py",
        "chosen = best < before",
        "chosen = best < np.inf",
        ("test_scaling_laws.py",),
    ),
    Fault(
        "size of the first curve everywhere",
        "scaling_laws/_lower_envelope.py",
        "holder = np.where(curve < best, size, holder)",
        "holder = np.where(np.isnan(holder), size, holder)",
        ("test_scaling_laws.py",),
    ),
    # Models as people bring them.
    Fault(
        "gradients asked for at the bounds",
        "attacks/_engine.py",
        "asked = points if hair is None else inside(",
        "asked = points if True else inside(",
        ("test_any_model.py",),
        "distances_behind or budget_attack",
    ),
    Fault(
        "a success a hair inside is believed",
        "attacks/_engine.py",
        "logits if hair is None else _confirmed(model, examples, points, logits)",
        "logits",
        ("test_any_model.py",),
        "hair_inside_the_bounds_that_is_none",
    ),
    Fault(
        "every model is asked inside the bounds",
        "attacks/_checks.py",
        "found = dtype if hidden(points, low, high, near, other) else None",
        "found = dtype",
        ("test_any_model.py",),
        "ordinary_network",
    ),
    Fault(
        "a step that bfloat16 swallows",
        "attacks/_checks.py",
        "return torch.bfloat16 if hidden(points, low, high, wider, dead) else found",
        "return found",
        ("test_any_model.py",),
        "swallows",
    ),
    Fault(
        "the mask is forgotten",
        "_boxes.py",
        "return torch.where(free, low, inputs), torch.where(free, high, inputs)",
        "return low, high",
        ("test_any_model.py",),
        "mask",
    ),
    Fault(
        "steps follow slopes that the mask excludes",
        "attacks/_engine.py",
        "jacobian = jacobian.masked_fill(~examples.free[:, None], 0)",
        "jacobian = jacobian * 1",
        ("test_any_model.py",),
        "whole_input",
    ),
    Fault(
        "copies are all alike",
        "_random.py",
        "torch.where(number > 0, _mix(keys + number * _GOLDEN), keys)",
        "keys",
        ("test_pgd.py",),
        "copies",
    ),
    Fault(
        "answers by place go unnoticed",
        "attacks/_checks.py",
        "if close(model(inputs.flip(0)).flip(0), logits):",
        "if True:",
        ("test_any_model.py",),
        "answers_by_place",
    ),
    Fault(
        "successes within rounding count",
        "attacks/_losses.py",
        "doubt = examples.rounding.to(logits)",
        "doubt = 0 * examples.rounding.to(logits)",
        ("test_any_model.py",),
        "stands_alone",
    ),
    Fault(
        "ddn starts from 1 in any units",
        "attacks/_ddn.py",
        "radius=scale if self.initial_norm is None",
        "radius=torch.ones_like(scale) if self.initial_norm is None",
        ("test_any_model.py",),
        "any_units",
    ),
    Fault(
        "the callback hears places in the batch",
        "attacks/_engine.py",
        "self.callback(examples.indices,",
        "self.callback(torch.arange(len(points)),",
        ("test_any_model.py",),
        "callback",
    ),
    Fault(
        "lengths whose squares underflow are 0",
        "_geometry.py",
        "((length > tiny) & (length < math.inf))",
        "(length < math.inf)",
        (
            "test_geometry.py",
            "test_numerics.py",
        ),
        "length",
    ),
    Fault(
        "lengths near underflow lose their digits",
        "_geometry.py",
        "tiny = torch.finfo(length.dtype).tiny ** 0.5 * 1e4",
        "tiny = 0.0",
        ("test_geometry.py",),
        "length",
    ),
    Fault(
        "an overdrawn budget is negative",
        "attacks/_square.py",
        "(epsilon**order - used).clamp(min=0)",
        "(epsilon**order - used)",
        ("test_square.py",),
        "budget",
    ),
    Fault(
        "errors on clean examples count as transfer",
        "evaluation/_transfer.py",
        "self.fooled(target, points, *few) & known",
        "self.fooled(target, points, *few)",
        ("test_curves.py",),
        "transfer",
    ),
    Fault(
        "one step beats iterative in either direction",
        "evaluation/diagnosis/_rules_comparisons.py",
        "        or found < (missed or 0)\n",
        "",
        ("test_findings.py",),
        "one_step",
    ),
    Fault(
        "median of an even count is the lower one",
        "evaluation/_statistics.py",
        "float(np.median(values.numpy()))",
        "values.median().item()",
        ("test_evaluation.py",),
        "median",
    ),
    Fault(
        "projection keeps one value too many in l0",
        "_l0.py",
        "kept = highest(gain, radius) & (gain > 0)",
        "kept = highest(gain, radius + 1) & (gain > 0)",
        ("test_l0.py",),
        "projection",
    ),
    Fault(
        "box ignored by the projection in l0",
        "_l0.py",
        "within = torch.minimum(torch.maximum(points, low), high)",
        "within = points",
        ("test_l0.py",),
        "projection",
    ),
    Fault(
        "gain beyond the box counts in l0",
        "_l0.py",
        " - (points.double() - within.double()) ** 2",
        "",
        ("test_l0.py",),
        "projection",
    ),
    Fault(
        "pixels counted for values in l0",
        "_l0.py",
        'channels = 1 if norm == "l0" or values.ndim < 3 else',
        "channels = 1 if values.ndim < 3 else",
        ("test_l0.py",),
        "more_than_the_count",
    ),
    Fault(
        "each channel of a pixel counted in l0",
        "_l0.py",
        "return (by_place(delta, norm) != 0).any(dim=1).sum(dim=1)",
        "return (by_place(delta, norm) != 0).sum(dim=(1, 2))",
        ("test_l0.py",),
        "transfer",
    ),
    Fault(
        "one place too many enters in l0",
        "attacks/_sparse_rs.py",
        "masked_fill(~spare, -1), number) & spare",
        "masked_fill(~spare, -1), number + 1) & spare",
        ("test_l0.py",),
        "more_than_the_count",
    ),
    Fault(
        "places that left stay changed in l0",
        "attacks/_sparse_rs.py",
        "current=torch.where(emptied, state.examples.inputs, state.best),",
        "current=state.best,",
        ("test_l0.py",),
        "more_than_the_count",
    ),
    Fault(
        "changes below the threshold stay in l0",
        "attacks/_sigma_zero.py",
        "delta=torch.where(kept, ahead, 0),",
        "delta=ahead,",
        ("test_l0.py",),
        "sigma_zero",
    ),
    Fault(
        "half a value as a radius in l0",
        "evaluation/_curves.py",
        "            check_epsilon(value, norm, name)\n",
        "            pass\n",
        ("test_l0.py",),
        "curve",
    ),
    Fault(
        "staged steps go nowhere in l0",
        "evaluation/_selective.py",
        "return L0_REACH * _l0.direction(gradient, width)",
        "return 0.0 * _l0.direction(gradient, width)",
        ("test_l0.py",),
        "layers",
    ),
]


def exchanged(fault: Fault, home: Path) -> None:
    """Apply the fault to the copy at ``home``."""
    path = home / "distillguard" / fault.file
    text = path.read_text()
    if text.count(fault.old) != 1:
        raise ValueError(
            f"old must occur once in {fault.file} for {fault.name!r}, got {text.count(fault.old)}"
        )
    path.write_text(text.replace(fault.old, fault.new))


def verdict(tests: tuple[str, ...], only: str, fault: Fault | None) -> tuple[int, str]:
    """Pytest's exit status and output on a copy of ``src``, with the fault if there is one."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        home = Path(folder) / "src"
        shutil.copytree(ROOT / "src", home, ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            exchanged(fault, home)
        rewriting = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        options = ["-x", "-q", "--tb=no", *rewriting, *(["-k", only] if only else [])]
        # A fork: what is imported already, torch above all, need not be imported for each fault.
        child = os.fork()
        if child == 0:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
            run_on_copy(home, [*options, *(f"tests/{test}" for test in tests)])
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        output.seek(0)
        return status, output.read().decode()


def run_on_copy(home: Path, options: list[str]) -> NoReturn:
    """Run pytest on the copy and leave the process; nothing else may stand in for the copy."""
    status = 99
    # Some faults never end. Processor seconds, which do not depend on what else is running.
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    try:
        os.chdir(ROOT)
        os.environ |= {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(home))
        import distillguard

        if not Path(distillguard.__file__).resolve().is_relative_to(home.resolve()):
            raise RuntimeError(f"{distillguard.__file__} was imported, not the copy in {home}")
        status = int(pytest.main(options))
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def judged(fault: Fault) -> dict[str, Any]:
    """Run the tests against one fault: a row of the table."""
    begun = time.perf_counter()
    status, output = verdict(fault.tests, fault.only, fault)
    found = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", output, flags=re.MULTILINE)
    caught = found.group(1) if found else None
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        caught = "the time limit"
    if status != 0 and not caught:
        raise RuntimeError(f"{fault.name!r} was not judged:\n{output[-2000:]}")
    return {
        "fault": fault.name,
        "file": fault.file,
        "verdict": "killed" if caught else "SURVIVED",
        "by": caught,
        "exchange": [fault.old, fault.new],
        "seconds": round(time.perf_counter() - begun, 1),
    }


def main() -> None:
    """Judge the faults, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="faults whose name or file contains this")
    parser.add_argument("--keep", action="store_true", help="do not repeat faults already killed")
    parser.add_argument("--unharmed", action="store_true", help="first see the tests pass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    chosen = [f for f in FAULTS if arguments.only in f.name or arguments.only in f.file]
    if arguments.unharmed:
        status, output = verdict(tuple(sorted({t for f in chosen for t in f.tests})), "", None)
        if status:
            sys.exit(f"the tests must pass on an unharmed copy:\n{output[-2000:]}")

    before = {row["fault"]: row for row in load("mutants").get("faults", [])}
    rows = dict(before)
    setting = circumstances("pytest", "hypothesis")
    for fault in chosen:
        old = before.get(fault.name)
        same = old is not None and old["exchange"] == [fault.old, fault.new]
        if not (arguments.keep and same and old["by"]):
            rows[fault.name] = judged(fault)
        row = rows[fault.name]
        ordered = [rows[each.name] for each in FAULTS if each.name in rows]
        save("mutants", {"circumstances": setting, "faults": ordered})
        print(f"{row['verdict']:9}{fault.name:45}{row['by'] or ''}", flush=True)
    survivors = [row["fault"] for row in ordered if not row["by"]]

    print()
    print(table(ordered, ["fault", "verdict", "by"]))
    if survivors:
        sys.exit(f"survived: {', '.join(survivors)}")


if __name__ == "__main__":
    main()
