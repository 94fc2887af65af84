"""The tasks of `distillguard.exercises` as Markdown, which the build puts into exercises.md."""

from distillguard import exercises

MARK = "<!-- exercises -->"


def setup(app) -> dict[str, bool]:
    """Have the tasks put into their page when Sphinx reads it."""
    app.connect("source-read", write)
    return {"parallel_read_safe": True}


def write(app, docname: str, source: list[str]) -> None:
    """Sphinx's source-read: put the tasks where the page has its mark."""
    if docname == "exercises":
        source[0] = source[0].replace(MARK, text())


def text() -> str:
    """All tasks by chapter."""
    parts = []
    for chapter, title in exercises.CHAPTERS.items():
        parts += [f"## {chapter}. {title}", *map(task_text, exercises.tasks(chapter).values())]
    return "\n\n".join(parts) + "\n"


def task_text(task: exercises.Task) -> str:
    """A task with what is to be revealed closed."""
    hints = [dropdown(f"Hint {n}", hint) for n, hint in enumerate(task.hints, 1)]
    names = ", ".join(f"`{each.name}`" for each in task.properties)
    parts = [
        f"### {task.name}",
        f"*{task.difficulty}, about {task.minutes} minutes*",
        task.statement,
        code(task.stub),
        f"Tested: {names}.",
        *hints,
        dropdown("Solution", code(task.solution)),
    ]
    return "\n\n".join(parts)


def dropdown(title: str, content: str) -> str:
    """A closed box of sphinx_design."""
    return f"::::{{dropdown}} {title}\n{content}\n::::"


def code(source: str) -> str:
    """A block of Python."""
    return f"```python\n{source.rstrip()}\n```"
