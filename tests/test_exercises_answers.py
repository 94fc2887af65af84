"""Answers to the exercises: wrong ones that learners give, and right ones written otherwise.

A wrong answer is the solution with one piece of its text replaced, or an expression.
"""

import inspect
import math

import pytest
import torch
from scipy.optimize import minimize_scalar

from distillguard import exercises

TASKS = exercises.tasks()

# (what the solution says, what the learner wrote, a property that fails) or
# (the expression returned, a property that fails).
WRONG = {
    "softmax_at_temperature": [
        ("shifted / temperature", "shifted", "temperature"),
        ("torch.softmax(logits * temperature, dim=1)", "temperature"),
        ("torch.softmax(logits / temperature, dim=0)", "sums-to-one"),
        ("(logits / temperature).exp() / (logits / temperature).exp().sum(1, True)", "overflow"),
        ("(z := (logits / temperature).clamp(-80, 80)).exp() / z.exp().sum(1, True)", "limits"),
        ("torch.softmax(logits, dim=1) / temperature", "sums-to-one"),
        ("torch.full_like(logits, 0.1)", "limits"),
        ("torch.softmax(logits.detach() / temperature, dim=1)", "gradient"),
        ("torch.softmax(logits - 0.1 * logits.square(), dim=1)", "shift"),
        ("torch.softmax(-logits / temperature, dim=1)", "order"),
    ],
    "stable_log_softmax": [
        ("torch.softmax(logits / temperature, dim=1).log()", "overflow"),
        ("(torch.softmax(logits / temperature, dim=1) + 1e-12).log()", "agrees"),
        ("torch.log_softmax(logits, dim=1)", "temperature"),
        ("torch.log_softmax(logits, dim=1) / temperature", "temperature"),
        ("dim=1", "dim=0", "normalised"),
        ("scaled - scaled.logsumexp", "scaled - scaled.detach().logsumexp", "gradient"),
        ("scaled.logsumexp(dim=1, keepdim=True)", "scaled.exp().sum(1, True).log()", "overflow"),
        ("logits / temperature", "shift"),
    ],
    "entropy_at_temperature": [
        ("logits / temperature", "logits", "limits"),
        ("return -(", "return (", "monotone"),
        (".sum(dim=1)", ".mean(dim=1)", "agrees"),
        (".sum(dim=1)", ".sum(dim=1) / math.log(2)", "agrees"),
        ("-((p := torch.softmax(logits / temperature, 1)) * p.log()).sum(1)", "overflow"),
        ("-(logits.softmax(1) * logits).sum(1) / temperature", "shift"),
        ("torch.full((len(logits),), min(temperature, 20.0))", "monotone"),
        ("torch.tensor([temperature] + [0.0] * (len(logits) - 1))", "monotone"),
    ],
    "soft_cross_entropy": [
        ("logits / temperature", "logits", "depends"),
        (".sum(dim=1)", ".sum(dim=1).mean()", "agrees"),
        (".sum(dim=1)", ".mean(dim=1)", "agrees"),
        ("return -", "return ", "minimum"),
        ("soft_targets * log_q", "torch.softmax(soft_targets, 1) * log_q", "minimum"),
        (".sum(dim=1)", ".sum(dim=1) * temperature**2", "agrees"),
        ("-(soft_targets * torch.softmax(logits / temperature, 1).log()).sum(1)", "overflow"),
        ("torch.nn.functional.cross_entropy(logits / temperature, soft_targets.argmax(1), "
         "reduction='none')", "agrees"),
        ("torch.zeros(len(logits))", "minimum"),
        ("-torch.arange(len(logits)) * logits[:, 0]", "minimum"),
        ("log_q).sum", "log_q.detach()).sum", "gradient"),
    ],
    "soft_target_gradient": [
        (" / temperature\n", "\n", "agrees"),
        ("(q - p)", "(p - q)", "agrees"),
        ("(q - p) / temperature", "(q - p) / temperature**2", "logit-matching"),
        ("(q - p)", "q", "zero-at-teacher"),
        ("student_logits / temperature", "student_logits", "agrees"),
        ("(q - p)", "(student_logits - teacher_logits)", "zero-sum"),
        ("(q - p)", "(q - p) * temperature**2", "agrees"),
        ("student_logits / temperature", "teacher_logits / temperature", "depends"),
        ("(q - p)", "(q - 2 * p)", "zero-sum"),
    ],
    "distillation_loss": [
        (" * temperature**2", "", "gradient-size"),
        (" * temperature**2", " * temperature", "gradient-size"),
        ("log_softmax(student_logits, dim=1)", "log_softmax(student_logits / temperature, dim=1)",
         "hard-term-at-one"),
        ("(1 - hard_label_weight) * soft + hard_label_weight * hard",
         "hard_label_weight * soft + (1 - hard_label_weight) * hard", "hard-term-at-one"),
        ("teacher_logits / temperature", "teacher_logits", "agrees"),
        ("return (1 - hard_label_weight) * soft", "return soft", "hard-term-at-one"),
        ("* hard\n", "* hard * temperature**2\n", "hard-term-at-one"),
        ("teacher_logits / temperature", "student_logits / temperature", "depends"),
        ("log_q = torch.log_softmax(student_logits / temperature, dim=1)",
         "log_q = torch.softmax(student_logits / temperature, dim=1).log()", "overflow"),
        ("* hard\n", "* hard.detach()\n", "gradient"),
        ("student_logits.sum(1) * 0 * teacher_logits.sum(1)", "gradient-size"),
        ("student_logits.sum(1) * (1.25 if temperature == 40 else 1)", "gradient-size"),
        ("student_logits.sum(1) * (0.79 if temperature == 40 else 1)", "gradient-size"),
    ],
    "training_step": [
        ("weight - learning_rate", "weight + learning_rate", "descends"),
        (".sum(dim=1).mean()", ".sum()", "agrees"),
        ("weight.T / temperature", "weight.T", "depends"),
        ("weight - learning_rate * gradient", "weight - gradient", "depends"),
        ("(weight - learning_rate * gradient).detach()", "weight - learning_rate * gradient",
         "no-graph"),
        ("(weight - learning_rate * gradient)", "(-learning_rate * gradient)", "agrees"),
        ("weight.clone()", "descends"),
    ],
    "fgsm_step": [
        ("inputs + epsilon", "inputs - epsilon", "loss-rises"),
        (".clamp(0, 1)", "", "bounds"),
        ("gradient.sign()", "gradient", "agrees"),
        ("epsilon * gradient.sign()", "gradient.sign()", "budget"),
        (".detach()\n", "\n", "borrowed-model"),
        ("(gradient,) = torch.autograd.grad(loss, inputs)",
         "loss.backward(); gradient = inputs.grad", "borrowed-model"),
        ("inputs + epsilon * gradient.sign()", "epsilon * gradient.sign()", "budget"),
        ("inputs.clone()", "loss-rises"),
        (".clamp(0, 1)", ".clamp(max=1)", "bounds"),
        (".clamp(0, 1)", ".clamp(min=0)", "bounds"),
        ("inputs + 0.25 * torch.eye(4)[:1]", "budget"),
        ('reduction="sum")', 'reduction="sum")\n    inputs = inputs + 0.01 * (len(inputs) - 1)',
         "one-by-one"),
        ("    return", "    last = list(model.parameters())[-1]\n    if last.ndim == 1:\n"
         "        last.grad = torch.zeros_like(last)\n    return", "borrowed-model"),
    ],
    "project_linf": [
        (".clamp(0, 1)", "", "agrees"),
        ("points.clamp(0, 1)", "budget"),
        ("points.clamp(-epsilon, epsilon)", "budget"),
        ("inputs + epsilon * (points - inputs).sign()", "agrees"),
        ("(inputs + (points - inputs).clamp(-0.25, 0.25)).clamp(0, 1)", "depends"),
        ("torch.minimum(points, inputs + epsilon).clamp(0, 1)", "budget"),
        ("inputs + 0 * epsilon", "agrees"),
        ("(inputs + (points - inputs).clamp(-epsilon, epsilon) / 2).clamp(0, 1)", "idempotent"),
        ("inputs + epsilon * torch.ones_like(points)", "centre"),
        ("return near", "return torch.cat([near[:1], points[1:]])", "budget"),
    ],
    "project_l2": [
        (".clamp(max=1)", "", "agrees"),
        ("epsilon / length).clamp(max=1)", "epsilon / delta.flatten(1).norm(dim=1))", "centre"),
        (".flatten(1).norm(dim=1)", ".norm().expand(len(points))", "agrees"),
        ("inputs + (points - inputs).clamp(-epsilon, epsilon)", "budget"),
        ("return inputs + delta", "return delta", "centre"),
        (".flatten(1).norm(dim=1)", ".flatten(1).norm(p=1, dim=1)", "agrees"),
        (".flatten(1).norm(dim=1)", ".flatten(1).square().sum(dim=1)", "agrees"),
        (".clamp(max=1)", ".clamp(max=0.5)", "idempotent"),
        ("epsilon / length", "0.25 / length", "depends"),
    ],
    "pgd_attack": [
        ("current + step_size", "current - step_size", "one-step"),
        ("moved = current", "moved = inputs", "reach"),
        ("current = current.clamp(0, 1)", "pass", "bounds"),
        ("torch.minimum(torch.maximum(moved, inputs - epsilon), inputs + epsilon)", "moved",
         "budget"),
        ("range(steps)", "range(steps - 1)", "reach"),
        ("gradient.sign()", "gradient", "reach"),
        ("inputs - epsilon), inputs + epsilon", "current - epsilon), current + epsilon", "budget"),
        ("torch.autograd.grad(loss, current)",
         "torch.autograd.grad(loss, current, retain_graph=True); loss.backward()",
         "borrowed-model"),
        ("inputs - epsilon), inputs + epsilon", "inputs - epsilon), inputs + 2 * epsilon",
         "agrees"),
        ("return current.detach()", "return torch.cat([inputs[:-1], current.detach()[-1:]])",
         "agrees"),
    ],
    "soft_labels": [
        (" / temperature", "", "depends"),
        ("dim=1", "dim=0", "sums-to-one"),
        ("teacher.eval()", "pass", "eval-mode"),
        ("torch.no_grad()", "torch.enable_grad()", "no-graph"),
        ("teacher(inputs) / temperature", "teacher(inputs) * temperature", "agrees"),
        ("torch.full((len(inputs), 3), 0.1)", "sums-to-one"),
        ("torch.nn.functional.one_hot(teacher(inputs).argmax(1), 3).float()", "agrees"),
        ("teacher(inputs)", "teacher(inputs[:1]).expand(len(inputs), -1)", "agrees"),
    ],
    "distil_by_hand": [
        ("        optimizer.zero_grad()\n", "", "agrees"),
        ("student(inputs) / temperature", "student(inputs)", "agrees"),
        ("teacher(inputs) / temperature", "teacher(inputs)", "agrees"),
        (".sum(dim=1).mean()", ".sum(dim=1).mean() * temperature**2", "agrees"),
        ("loss = -(", "loss = (", "descends"),
        ("return student", "return teacher", "returns-student"),
        ("student.parameters()", "teacher.parameters()", "descends"),
        ("range(steps)", "range(1)", "depends"),
        ("student.parameters(), lr", "[*student.parameters(), *teacher.parameters()], "
         "weight_decay=1e-3, lr", "agrees"),
        ("    return student", "    for weight in teacher.parameters():\n"
         "        weight.data *= 1 - 1e-6\n    return student", "teacher-kept"),
        ("    return student", "    first = next(teacher.parameters())\n"
         "    first.grad = torch.zeros_like(first)\n    return student", "teacher-kept"),
        ("return student", "return __import__('copy').deepcopy(student)", "returns-student"),
        ("lr=learning_rate", "lr=2.0", "depends"),
    ],
    "zero_gradient_share": [
        (".all(dim=1)", "", "agrees"),
        (".all(dim=1)", ".any(dim=1)", "counts"),
        ("gradient.flatten(1) == 0", "gradient.flatten(1) != 0", "counts"),
        ("gradient.flatten(1) == 0", "gradient.flatten(1).abs() < 0.01", "agrees"),
        (".mean().item()", ".sum().item()", "counts"),
        ("torch.autograd.grad(loss, inputs)",
         "torch.autograd.grad(loss, inputs, retain_graph=True); loss.backward()",
         "borrowed-model"),
        ("(model(inputs).argmax(1) == labels).double().mean().item()", "counts"),
        ("0.0", "grows-with-logits"),
        ("    return", "    last = list(model.parameters())[-1]\n    if last.ndim == 1:\n"
         "        last.grad = torch.zeros_like(last)\n    return", "borrowed-model"),
    ],
    "margin": [
        ("others.amax(dim=1) - ", "", "sign"),
        ("logits.scatter(1, labels[:, None], -torch.inf)",
         "logits * (1 - torch.nn.functional.one_hot(labels, logits.shape[1]))", "shift"),
        ("others.amax(dim=1)", "logits.amax(dim=1)", "agrees"),
        (".squeeze(1)\n", ".squeeze(1).neg().neg().mean()\n", "one-value-each"),
        ("logits.softmax(1).scatter(1, labels[:, None], -1).amax(1) - "
         "logits.softmax(1).gather(1, labels[:, None])[:, 0]", "scale"),
        ("logits.gather(1, labels[:, None])[:, 0] - "
         "logits.scatter(1, labels[:, None], -torch.inf).amax(1)", "sign"),
        ("torch.relu(logits.scatter(1, labels[:, None], -torch.inf).amax(1) - "
         "logits.gather(1, labels[:, None])[:, 0])", "agrees"),
        ("return others.amax(dim=1) - logits.gather(1, labels[:, None]).squeeze(1)",
         "return (others.amax(dim=1) - logits.gather(1, labels[:, None])[:, 0]).clamp(max=0)",
         "sign"),
        ("others.amax(dim=1) - ", "others.exp().sum(dim=1).log() - ", "overflow"),
        ("logits.amax(dim=1) - logits.amin(dim=1)", "depends"),
        ("others.amax(dim=1) - ", "others.amax(dim=1).detach() - ", "gradient"),
    ],
    "carlini_wagner_objective": [
        (".square().sum(dim=1)\n", ".square().sum(dim=1) ** 1 / 2\n", "agrees"),
        (".square().sum(dim=1)\n", ".norm(dim=1)\n", "agrees"),
        (".clamp(min=-confidence)", "", "confidence"),
        (".clamp(min=-confidence)", ".clamp(min=0)", "confidence"),
        (".clamp(min=-confidence)", ".clamp(min=confidence)", "confidence"),
        ("distance + c * ", "distance + ", "depends"),
        ("others - logits.gather(1, target[:, None]).squeeze(1)",
         "logits.gather(1, target[:, None]).squeeze(1) - others", "confidence"),
        (".sum(dim=1)\n", ".sum()\n", "agrees"),
        ("return distance", "return 2 * distance", "distance-alone"),
        ("others = logits", "logits = logits.exp()\n    others = logits", "overflow"),
    ],
    "to_tanh_space": [
        (" * 0.999999", "", "finite"),
        ("2 * inputs - 1", "inputs", "round-trip"),
        ("torch.atanh((2 * inputs - 1).clamp(-0.9, 0.9))", "round-trip"),
        ("torch.atanh(2 * inputs - 1).clamp(-20, 20)", "can-move"),
        ("torch.tanh(inputs)", "round-trip"),
        ("torch.atanh((1 - 2 * inputs) * 0.999999)", "order"),
        ("torch.where(inputs == 0.75, 20.0, torch.atanh((2 * inputs - 1) * 0.999999))",
         "can-move"),
        ("torch.atanh((2 * inputs - 1) * 0.999999).clamp(min=-0.5)", "order"),
        ("torch.where((inputs == 0.5) & (inputs.numel() > 1), math.inf, "
         "torch.atanh((2 * inputs - 1) * 0.999999))", "finite"),
    ],
    "next_constant": [
        ("10 * c if", "2 * c if", "agrees"),
        ("10 * c if high == math.inf else (low + high) / 2", "(low + high) / 2", "agrees"),
        ("if success else", "if not success else", "converges"),
        ("min(high, c)", "c", "agrees"),
        ("max(low, c)", "c", "agrees"),
        ("(low + high) / 2", "c / 2 if success else 10 * c", "agrees"),
        ("(low + high) / 2", "2 * high", "brackets"),
        ("(low - 1.0, low, high)", "brackets"),
        ("(high, high, low)", "brackets"),
    ],
    "search_over_c": [
        ("return best", "return c", "asks"),
        ("range(steps)", "range(steps - 1)", "asks"),
        ("range(steps)", "range(steps + 1)", "asks"),
        ("c, best = 0.0, math.inf, start, math.inf", "c, best = 0.0, math.inf, start, 0.0",
         "failure"),
        ("10 * c if high == math.inf else (low + high) / 2", "10 * c", "converges"),
        ("low = max(low, c)", "low, high, best = c, math.inf, math.inf", "asks"),
        ("if succeeds(c):", "if not succeeds(c):", "asks"),
        ("math.inf, start,", "math.inf, 1.0,", "asks"),
        ("[succeeds(2 * start) for _ in range(steps)] and start", "asks"),
    ],
    "saliency_pair": [
        ("jacobian.sum(dim=0) - rise", "jacobian.sum(dim=0)", "agrees"),
        ("(alpha > 0) & (beta < 0)", "alpha * beta < 0", "signs"),
        ("(alpha > 0) & (beta < 0)", "alpha == alpha", "signs"),
        ("-alpha * beta", "alpha * beta", "agrees"),
        (".tril()", ".tril(-1)", "pair"),
        ("(alpha > 0) & (beta < 0)", "(alpha > 0) & (fall[:, None] < 0) & (fall < 0)", "agrees"),
        ("jacobian.sum(dim=0) - rise", "(jacobian.sum(dim=0) - rise).clamp(max=0)", "agrees"),
        ("-alpha * beta", "alpha - beta", "agrees"),
        ("jacobian[target]", "jacobian[0]", "agrees"),
        ("tuple(sorted(jacobian[target].topk(2).indices.tolist()))", "signs"),
        ("(0, jacobian.shape[1])", "pair"),
        ("(-1, 1)", "pair"),
        ("(0, 2)", "signs"),
        ("(1, 2)", "signs"),
        ("(0, 1)", "depends"),
    ],
    "dlr_loss": [
        ("ordered[:, 2]", "ordered[:, 1]", "agrees"),
        (" / spread", "", "scale"),
        ("return (others - logits.gather(1, labels[:, None]).squeeze(1))",
         "return (logits.gather(1, labels[:, None]).squeeze(1) - others)", "range"),
        ("ordered[:, 0] - ordered[:, 2] + 1e-12", "logits.norm(dim=1)", "shift"),
        ("descending=True", "descending=False", "range"),
        ("logits.sort(", "others[:, None].expand_as(logits).sort(", "agrees"),
        ("+ 1e-12", "+ 1.0", "scale"),
        (" / spread", " / spread.detach()", "gradient"),
        ("return (", "return 0 * logits.exp().sum(dim=1) + (", "overflow"),
        ("logits.sort(dim=1).values.diff().amax(dim=1)", "depends"),
        (".squeeze(1)) / spread", ".squeeze(1)).sum() / spread", "one-value-each"),
        ("return (", "return 2 * (", "range"),
        ("(logits.argmax(1) != labels) * 0.0", "range"),
    ],
    "worst_case_accuracy": [
        ("correct.double().mean().item()", "strongest"),
        ("correct.double().mean(dim=1).min().item()", "agrees"),
        (".all(dim=0)", ".any(dim=0)", "strongest"),
        (".all(dim=0)", ".all(dim=1)", "agrees"),
        ("correct[0].double().mean().item()", "order"),
        (".mean().item()", ".sum().item()", "agrees"),
        ("correct.double().mean().item() / 2", "another"),
    ],
    "wilson_interval": [
        ("((p := count / n) - (h := z * math.sqrt(p * (1 - p) / n)), p + h)", "range"),
        (" / (1 + weight)\n    half", "\n    half", "agrees"),
        ("share * (1 - share) / n", "share * (1 - share)", "width"),
        ("centre - half), min(1.0, centre + half", "share - half), min(1.0, share + half",
         "agrees"),
        ("z * math.sqrt", "1.96 * math.sqrt", "agrees"),
        ("weight / (4 * n)", "weight / 4", "agrees"),
        ("(max(0.0, count / n - 0.01), min(1.0, count / n + 0.02))", "mirror"),
        ("(max(0.0, count / n - 0.01), min(1.0, count / n + 0.02))", "library"),
        ("(0.0, 8.0 if n < 5000 else 1.0)", "width"),
        ("(0.0, 12.0 if n < 5000 else 1.0)", "width"),
        ("(0.0, count / n - 0.1)", "range"),
        ("(count / n + 0.1, 1.0)", "range"),
        ("(-0.1, 1.0)", "range"),
        ("(0.0, 1.1)", "range"),
    ],
    "straight_through": [
        ("function(inputs)", "identity-gradient"),
        ("inputs", "values"),
        ("function(inputs).detach()", "identity-gradient"),
        ("function(inputs) + inputs", "values"),
        ("function(inputs) + inputs - inputs.detach()", "identity-gradient"),
        ("inputs + (function(inputs) - function(inputs) + function(inputs) - inputs).detach()",
         "asked-once"),
        ("inputs.detach() + function(inputs) - inputs.detach()", "identity-gradient"),
    ],
    "averaged_gradient": [
        ("range(draws)", "range(1)", "draws"),
        (".mean()\n", ".sum()\n", "mean"),
        ("torch.stack([loss(inputs).sum() for _ in range(draws)])",
         "loss(inputs).sum().expand(draws)", "draws"),
        ("return gradient", "return gradient.sign()", "mean"),
        ("return gradient", "return gradient.mean(dim=0)", "expectation"),
        ("return gradient", "return gradient + 0 * inputs", "no-graph"),
        ("loss(inputs).sum() for", "loss(inputs).mean() for", "expectation"),
        ("return gradient", "return gradient + 3 * torch.eye(3)[:1]", "expectation"),
    ],
    "trades_loss": [
        ("log_p.exp() * (log_p - log_q)", "log_q.exp() * (log_q - log_p)", "agrees"),
        ("log_p - log_q)).sum", "log_p - log_q)).mean", "agrees"),
        ("+ beta * divergence", "+ divergence", "depends"),
        ("natural = -log_p", "natural = -log_q", "agrees"),
        ("log_p.exp() * (log_p", "log_p.exp().detach() * (log_p.detach()", "gradient"),
        ("beta * divergence", "beta * -divergence", "not-negative"),
        ("torch.log_softmax(adversarial_logits, dim=1)",
         "torch.softmax(adversarial_logits, dim=1).log()", "overflow"),
        ("+ beta * divergence", "+ beta * (divergence + 0.1)", "no-attack"),
        ("torch.nn.functional.cross_entropy(clean_logits, labels, reduction='none') "
         "- torch.arange(len(labels))", "not-negative"),
    ],
    "adversarial_training_step": [
        ("attack(model, inputs, labels).detach()", "inputs", "attacks"),
        (".detach()", "", "attack-detached"),
        ("weight.sub_(", "weight.add_(", "descends"),
        ("learning_rate * gradient", "gradient", "agrees"),
        ("nn.functional.cross_entropy(model(adversarial), labels)",
         "nn.functional.cross_entropy(model(adversarial), labels, reduction='sum')", "agrees"),
        ("model(adversarial)", "model(inputs)", "agrees"),
        ("gradients = torch.autograd.grad(loss, list(model.parameters()))",
         "loss.backward(); gradients = [weight.grad for weight in model.parameters()]", "agrees"),
        ("attack(model,", "attack(__import__('copy').deepcopy(model),", "attacks"),
        ("attack(model, inputs, labels)", "attack(model, inputs, 1 - labels)", "attacks"),
        ("attack(model, inputs, labels)", "(attack(model, inputs, labels), "
         "attack(model, inputs, labels))[1]", "attacks"),
        ("learning_rate * gradient", "0 * gradient", "descends"),
        ("zip(model.parameters(), gradients, strict=True)",
         "[(next(model.parameters()), gradients[0])]", "agrees"),
    ],
    "power_law": [
        ("-slope.item()", "slope.item()", "exact"),
        ("math.exp(y.mean() - slope * x.mean())", "(y.mean() - slope * x.mean()).item()", "exact"),
        ("compute.double().log(), loss.double().log()", "compute.double(), loss.double()",
         "exact"),
        (".log(), loss.double().log()", ".log10(), loss.double().log10()", "exact"),
        ("(((b := -math.log(loss[-1] / loss[0]) / math.log(compute[-1] / compute[0])), "
         "(loss[0] * compute[0] ** b).item())[::-1])", "agrees"),
        ("(x - x.mean()).square().sum()", "x.square().sum()", "exact"),
        ("(1.0, 0.5)", "units"),
        ("(1.0, 0.5)", "scale"),
    ],
    "compute_optimal_size": [
        ("beta / (alpha + beta))\n", "alpha / (alpha + beta))\n", "exponent"),
        ("alpha * A / (beta * B)", "A / B", "agrees"),
        ("alpha * A / (beta * B)", "beta * B / (alpha * A)", "optimal"),
        ("flops / flops_factor", "flops", "depends"),
        ("math.sqrt(flops / flops_factor)", "depends"),
        ("** (1 / (alpha + beta))", "", "agrees"),
        ("(flops / flops_factor)", "(flops * flops_factor)", "optimal"),
        ("** (1 / (alpha + beta))", "** (1 / (alpha + beta)) * 1.02", "optimal"),
        ("** (1 / (alpha + beta))", "** (1 / (alpha + beta)) * 0.98", "optimal"),
        ("** (1 / (alpha + beta))", "** (1 / (alpha + beta)) * 1.001", "agrees"),
    ],
    "detector_threshold": [
        ("scores.sort().values", "scores", "order"),
        ("(1 - rate)", "rate", "false-positives"),
        ("(len(scores) + 1)", "len(scores)", "further-example"),
        ("scores.max().item()", "not-idle"),
        ("(scores.mean() + 1.645 * scores.std()).item()", "depends"),
        ("1 - rate", "units"),
        ("scores.quantile(1 - rate).item()", "agrees"),
        ("3.0 + 0 * rate", "units"),
    ],
    "answer_or_reject": [
        ("scores > threshold", "scores >= threshold", "equal"),
        ("scores > threshold", "scores < threshold", "infinite-threshold"),
        ("logits.argmax(dim=1)", "low-threshold"),
        (".masked_fill(scores > threshold, -1)", "[scores <= threshold]", "agrees"),
        ("argmax(dim=1)", "argmax(dim=0)", "agrees"),
        ("-1)", "0)", "low-threshold"),
        ("torch.where(scores > threshold, -1.0, logits.argmax(1).double())", "whole-numbers"),
    ],
    "stopped_first": [
        ("stops.sum(dim=1)", "adds-up"),
        ("passed & ~layer", "~layer", "agrees"),
        ("passed & ~layer", "passed & layer", "agrees"),
        ("(layer & passed).sum()", "(~layer & passed).sum()", "first-layer"),
        ("stops.flip(0).sum(dim=1)", "first-layer"),
        ("stops.long().cumsum(0).bool().sum(1)", "adds-up"),
        ("torch.stack([*stops.sum(dim=1)[:1], *stops.sum(dim=1)[1:]])", "twin"),
    ],
}  # fmt: skip


def _stable(logits, temperature):
    top = torch.max(logits, dim=1, keepdim=True).values
    return torch.nn.functional.softmax((logits - top) / temperature, dim=-1)


def _by_backward(model, inputs, labels, epsilon):
    x = inputs.clone().requires_grad_(True)
    losses = torch.nn.functional.cross_entropy(model(x), labels, reduction="none")
    slope = torch.autograd.grad(losses.mean(), x)[0]
    return torch.clip(x.detach() + epsilon * torch.sign(slope), 0.0, 1.0)


def _step_in_closed_form(weight, inputs, soft_targets, temperature, learning_rate):
    q = torch.softmax(inputs @ weight.detach().T / temperature, dim=1)
    error = q * soft_targets.sum(dim=1, keepdim=True) - soft_targets
    gradient = error.T @ inputs / (temperature * len(inputs))
    return weight.detach() - learning_rate * gradient


def _pgd_as_a_shift(model, inputs, labels, epsilon, step_size, steps):
    shift = torch.zeros_like(inputs)
    for _ in range(steps):
        point = (inputs + shift).detach().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(point), labels, reduction="sum")
        shift = (shift + step_size * torch.autograd.grad(loss, point)[0].sign()).clamp(
            -epsilon, epsilon
        )
        shift = (inputs + shift).clamp(0, 1) - inputs
    return (inputs + shift).detach()


def _distilled_without_an_optimizer(teacher, student, inputs, temperature, learning_rate, steps):
    targets = torch.softmax(teacher(inputs).detach() / temperature, dim=1)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(student(inputs) / temperature, targets)
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= learning_rate * gradient
    return student


def _zero_share_one_by_one(model, inputs, labels):
    zeros = 0
    for x, label in zip(inputs.detach(), labels, strict=True):
        x = x[None].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model(x), label[None])
        zeros += not bool(torch.autograd.grad(loss, x)[0].abs().any())
    return zeros / len(inputs)


def _next_constant_by_cases(c, low, high, success):
    if success:
        if c < high:
            high = c
        return low + (high - low) / 2, low, high
    if c > low:
        low = c
    return (c * 10 if math.isinf(high) else low + (high - low) / 2), low, high


def _search_with_a_list(succeeds, start, steps):
    c, low, good = start, 0.0, []
    for _ in range(steps):
        if succeeds(c):
            good.append(c)
        elif c > low:
            low = c
        c = (low + min(good)) / 2 if good else c * 10
    return min(good, default=math.inf)


def _pair_by_loops(jacobian, target):
    table = jacobian.double().tolist()
    others = [row for k, row in enumerate(table) if k != target]
    scores = {}
    for p in range(jacobian.shape[1]):
        for q in range(p + 1, jacobian.shape[1]):
            alpha = table[target][p] + table[target][q]
            beta = sum(row[p] + row[q] for row in others)
            if alpha > 0 > beta:
                scores[p, q] = -alpha * beta
    return max(scores, key=scores.get)


def _gradients_averaged(loss, inputs, draws):
    total = torch.zeros_like(inputs)
    for _ in range(draws):
        point = inputs.detach().clone().requires_grad_()
        loss(point).sum().backward()
        total += point.grad / draws
    return total


def _step_by_sgd(model, attack, inputs, labels, learning_rate):
    adversarial = attack(model, inputs, labels).detach()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(adversarial), labels).backward()
    optimizer.step()


def _line_by_lstsq(compute, loss):
    x = compute.double().log()
    columns = torch.stack([torch.ones_like(x), -x], dim=1)
    offset, b = (
        torch.linalg.lstsq(columns, loss.double().log()[:, None]).solution.flatten().tolist()
    )
    return math.exp(offset), b


def _size_by_golden_section(flops, A, B, alpha, beta, flops_factor):
    pairs = flops / flops_factor
    result = minimize_scalar(
        lambda n: A * math.exp(-alpha * n) + B * math.exp(-beta * (math.log(pairs) - n)),
        bracket=(0.0, math.log(pairs)),
        tol=1e-12,
    )
    return math.exp(result.x)


def _threshold_by_counting(scores, rate):
    place = min(math.ceil((1 - rate) * (len(scores) + 1)), len(scores))
    return next(s for s in sorted(scores.tolist()) if sum(scores <= s) >= place)


def _log_partition(z):
    """Log of the sum of exponentials, by the largest logit taken out."""
    top = z.detach().amax(dim=1, keepdim=True)
    return top[:, 0] + (z - top).exp().sum(dim=1).log()


def _entropy_from_energy(z, t):
    z = z / t
    q = torch.nn.functional.softmax(z, dim=1)
    return _log_partition(z) - torch.einsum("nk,nk->n", q, z)


def _gradient_by_autograd(student, teacher, t):
    z = student.detach().clone().requires_grad_(True)
    targets = torch.nn.functional.softmax(teacher / t, dim=1)
    loss = torch.nn.functional.cross_entropy(z / t, targets, reduction="sum")
    return torch.autograd.grad(loss, z)[0]


def _hinton_by_divergence(student, teacher, labels, t, weight):
    log_p, log_q = (torch.nn.functional.log_softmax(z / t, dim=1) for z in (teacher, student))
    divergence = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    entropy = -torch.special.xlogy(log_p.exp(), log_p.exp())
    hard = torch.nn.functional.cross_entropy(student, labels, reduction="none")
    return hard * weight + (1 - weight) * t * t * (divergence + entropy).sum(dim=1)


def _labels_row_by_row(teacher, inputs, t):
    was = teacher.training
    teacher.train(False)
    try:
        rows = [torch.nn.functional.softmax(teacher(x[None]) / t, dim=-1) for x in inputs]
    finally:
        teacher.train(was)
    return torch.cat(rows).detach()


def _margin_by_removal(z, y):
    """The others are the columns that are left when the label's is taken out."""
    keep = torch.ones_like(z, dtype=torch.bool)
    keep[torch.arange(len(z)), y] = False
    others = z[keep].reshape(len(z), -1)
    return others.max(dim=1).values - z[torch.arange(len(z)), y]


def _objective_by_example(adversarial, inputs, logits, target, c, confidence):
    values = []
    for a, x, z, t in zip(adversarial, inputs, logits, target.tolist(), strict=True):
        rest = torch.cat([z[:t], z[t + 1 :]]).max()
        hinge = torch.nn.functional.relu(rest - z[t] + confidence) - confidence
        values.append(((a - x) ** 2).sum() + c * hinge)
    return torch.stack(values)


def _dlr_by_topk(z, y):
    first, second, third = z.topk(3, dim=1).values.unbind(dim=1)
    own = z[torch.arange(len(z)), y]
    best_other = torch.where(z.argmax(dim=1) == y, second, first)
    return (best_other - own) / (first - third).clamp(min=1e-12)


def _trades_by_modules(clean, adversarial, y, beta):
    log_q = torch.nn.functional.log_softmax(adversarial, dim=-1)
    p = torch.nn.functional.softmax(clean, dim=-1)
    divergence = torch.nn.functional.kl_div(log_q, p, reduction="none").sum(dim=-1)
    return torch.nn.functional.cross_entropy(clean, y, reduction="none") + beta * divergence


def _interval_by_bisection(k, n, z):
    """The shares at which the observed one is just z standard errors away."""

    def end(inside, outside):
        for _ in range(200):
            middle = (inside + outside) / 2
            if abs(k / n - middle) <= z * math.sqrt(middle * (1 - middle) / n):
                inside = middle
            else:
                outside = middle
        return inside

    return end(k / n, 0.0), end(k / n, 1.0)


RIGHT = {
    "softmax_at_temperature": _stable,
    "stable_log_softmax": lambda z, t: torch.nn.functional.log_softmax(z / t, dim=-1),
    "entropy_at_temperature": _entropy_from_energy,
    "soft_cross_entropy": lambda z, p, t: torch.nn.functional.cross_entropy(
        z / t, p, reduction="none"
    ),
    "soft_target_gradient": _gradient_by_autograd,
    "distillation_loss": _hinton_by_divergence,
    "fgsm_step": _by_backward,
    "project_linf": lambda p, x, e: (x + (p - x).clamp(-e, e)).clamp(0, 1),
    "project_l2": lambda p, x, e: torch.renorm(p - x, 2, 0, e) + x,
    "soft_labels": _labels_row_by_row,
    "margin": _margin_by_removal,
    "carlini_wagner_objective": _objective_by_example,
    "to_tanh_space": lambda x: torch.logit(x.clamp(1e-6, 1 - 1e-6)) / 2,
    "dlr_loss": _dlr_by_topk,
    "worst_case_accuracy": lambda c: float(c.double().amin(dim=0).mean()),
    "wilson_interval": _interval_by_bisection,
    "straight_through": lambda f, x: f(x).detach() + x - x.detach(),
    "trades_loss": _trades_by_modules,
    "answer_or_reject": lambda z, s, t: torch.where(s <= t, z.max(dim=1).indices, -1),
    "stopped_first": lambda s: (
        (s & (s.long().cumsum(0) == 1)).logical_and((s.long().cumsum(0) - s.long()) == 0).sum(1)
    ),
    "training_step": _step_in_closed_form,
    "pgd_attack": _pgd_as_a_shift,
    "distil_by_hand": _distilled_without_an_optimizer,
    "zero_gradient_share": _zero_share_one_by_one,
    "next_constant": _next_constant_by_cases,
    "search_over_c": _search_with_a_list,
    "saliency_pair": _pair_by_loops,
    "averaged_gradient": _gradients_averaged,
    "adversarial_training_step": _step_by_sgd,
    "power_law": _line_by_lstsq,
    "compute_optimal_size": _size_by_golden_section,
    "detector_threshold": _threshold_by_counting,
}


def _written(task, *answer):
    """The function that a learner wrote, and the property that it lacks."""
    if len(answer) == 3:
        old, new, broken = answer
        assert old in task.solution, old
        source = "import math\nimport torch\n" + task.solution.replace(old, new)
    else:
        expression, broken = answer
        parameters = ", ".join(inspect.signature(task.answer).parameters)
        source = f"import math\nimport torch\ndef {task.name}({parameters}): return {expression}"
    names = {}
    exec(source, names)
    return names[task.name], broken


CASES = [(name, *answer) for name, answers in WRONG.items() for answer in answers]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[-2][:30]}")
def test_a_wrong_answer_fails_a_property_that_says_why(case):
    function, broken = _written(TASKS[case[0]], *case[1:])
    result = exercises.check(case[0], function)
    found = {failure.name: failure.found for failure in result.failures}
    assert broken in found
    assert not found[broken].startswith("it raised NameError")
    assert len(found) == len(result.failures)


@pytest.mark.parametrize("name", WRONG)
def test_every_property_of_a_task_has_a_wrong_answer_that_fails_it(name):
    assert {each.name for each in TASKS[name].properties} <= {row[-1] for row in WRONG[name]}


def test_every_task_has_at_least_five_wrong_answers():
    assert WRONG.keys() == TASKS.keys()
    assert min(map(len, WRONG.values())) >= 5


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_answer_written_otherwise_passes(name):
    result = exercises.check(name, RIGHT[name])
    assert result, str(result)


def test_every_task_has_a_right_answer_that_is_not_the_librarys():
    assert TASKS.keys() == RIGHT.keys()
    homes = {answer.__module__ for answer in RIGHT.values()}
    assert homes == {__name__}
