"""The exercises: tasks are whole, stubs and errors are met kindly, results say what is needed."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import distillguard
from distillguard import exercises
from distillguard.exercises._properties import differ
from distillguard.functional import margin_loss

TASKS = exercises.tasks()
DOCS = Path(distillguard.__file__).parents[2] / "docs"


def test_there_are_tasks_in_every_chapter():
    assert len(TASKS) >= 24
    assert {task.chapter for task in TASKS.values()} == exercises.CHAPTERS.keys()
    assert [task for n in exercises.CHAPTERS for task in exercises.tasks(n)] == list(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_whole_and_its_solution_passes_from_its_text_alone(name):
    task = TASKS[name]
    assert len({*task.hints}) == 3
    assert task.minutes > 0
    assert task.statement.split(" ") == task.statement.split()
    assert len(task.properties) >= 3
    assert all(each.why and each.rule for each in task.properties)
    names: dict = {}
    exec(task.solution, names)
    result = exercises.check(name, names[name])
    assert result, str(result)


@pytest.mark.parametrize("name", TASKS)
def test_a_solution_leaves_the_tensors_that_it_is_given_as_they_were(name):
    kept = []

    def watched(*given):
        tensors = [each for each in given if isinstance(each, torch.Tensor)]
        before = [(each.requires_grad, each.detach().clone()) for each in tensors]
        answer = TASKS[name].answer(*given)
        for each, (wanted, values) in zip(tensors, before, strict=True):
            kept.append(each.requires_grad == wanted and bool((each == values).all()))
        return answer

    exercises.check(name, watched)
    assert all(kept)


@pytest.mark.parametrize("name", TASKS)
def test_a_stub_fails_kindly(name):
    names: dict = {}
    exec(TASKS[name].stub, names)
    result = exercises.check(name, names[name])
    assert [failure.name for failure in result.failures] == ["written"]
    assert f"{name} is yours to write" in str(result)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    "answer",
    [
        lambda *arguments: None,
        lambda *arguments: 1 / 0,
        lambda *arguments: torch.zeros(7, 7),
        lambda *arguments: arguments[0],
        None,
    ],
    ids=["none", "raises", "shape", "first argument", "no function"],
)
def test_no_answer_makes_the_checker_raise(name, answer):
    result = exercises.check(name, answer)
    assert not result
    assert str(result)
    assert "<table>" in result._repr_html_()


def test_a_failure_names_the_property_the_input_and_the_reason():
    result = exercises.check("margin", lambda z, y: z.amax(1) - z.gather(1, y[:, None])[:, 0])
    failure = next(each for each in result.failures if each.name == "agrees")
    assert (
        failure.given == "logits = [[2.0, 1.0, 0.0]] in torch.float32, labels = [0] in torch.int64"
    )
    assert failure.found.startswith("got [0.0]")
    assert failure.why in str(result)
    assert "FAILED  agrees" in str(result)


def test_an_answer_of_another_shape_is_told_both_shapes():
    answer = lambda logits, labels: torch.zeros(7, 7)  # noqa: E731
    failure = next(
        each for each in exercises.check("margin", answer).failures if each.name == "agrees"
    )
    assert failure.found == "got shape (7, 7), expected (1,)"


@pytest.mark.parametrize("answer", [2.5, (2.5,), [1, 2, 3]])
def test_an_answer_that_is_no_pair_where_one_is_due_is_told_so(answer):
    found = differ(answer, (1.0, 2.0))
    assert found.startswith("got ")
    assert found.endswith(", expected 2 values")


def test_an_answer_that_raises_is_told_the_last_line_of_its_error():
    for text, told in (("first\nsecond", "second"), ("", "no message")):

        def raises(logits, labels, text=text):
            raise ValueError(text)

        failures = exercises.check("margin", raises).failures
        assert f"it raised ValueError: {told}" in {failure.found for failure in failures}


def test_the_import_of_the_exercises_draws_no_random_numbers():
    script = "import torch; torch.manual_seed(3); import {}; print(torch.rand(4).tolist())"
    shown = [
        subprocess.run(
            [sys.executable, "-c", script.format(module)],
            capture_output=True, text=True, check=True,
        ).stdout
        for module in ("distillguard.exercises", "math")
    ]  # fmt: skip
    assert shown[0] == shown[1]


def test_an_answer_that_overwrites_its_arguments_is_told_so():
    def in_place(logits, labels):
        value = margin_loss(logits, labels)
        logits += 1
        return value

    failed = exercises.check("margin", in_place).failures
    assert "arguments-kept" in [each.name for each in failed]


def test_a_check_leaves_the_random_state_as_it_was():
    torch.manual_seed(3)
    exercises.check("margin", lambda z, y: margin_loss(z, y) + torch.rand(len(z)))
    found = torch.rand(2)
    torch.manual_seed(3)
    assert torch.equal(found, torch.rand(2))


def test_progress_counts_what_is_solved_and_passes_over_other_names():
    progress = exercises.progress({"margin": margin_loss, "dlr_loss": margin_loss, "other": 3})
    assert progress.solved == ["margin"]
    assert progress.results["fgsm_step"] is None
    assert f"1 of {len(TASKS)} tasks solved" in str(progress)
    assert "<th>task</th>" in progress._repr_html_()


def test_unknown_tasks_hints_and_chapters_are_refused():
    with pytest.raises(ValueError, match=r"task must be one of .*, got 'fgm'"):
        exercises.check("fgm", margin_loss)
    with pytest.raises(ValueError, match=r"n must be one of 1, 2, 3, got 4"):
        exercises.hint("margin", 4)
    with pytest.raises(ValueError, match=r"chapter must be one of .*, got 10"):
        exercises.tasks(10)


def test_the_page_has_each_task_with_stub_hints_and_solution():
    page = runpy.run_path(str(DOCS / "exercise_page.py"))
    assert page["MARK"] in (DOCS / "exercises.md").read_text()
    text = page["text"]()
    for name, task in TASKS.items():
        section = text.partition(f"\n### {name}\n")[2].partition("\n### ")[0]
        assert all(part in section for part in (task.statement, task.stub.strip(), *task.hints))
        assert section.count("{dropdown}") == 4
        assert task.solution.strip() in section
