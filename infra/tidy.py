"""Checks of the tree that no linter makes. Prints what it finds; exit 1 where there is anything."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

PORTIONS = (
    "schemas/gatebook/schemas",
    "producers/gatebook/producers",
    "processors/gatebook/processors",
    "infra/gatebook/engines",
    "infra/gatebook/cli",
)
SOURCES = ("schemas", "producers", "processors", "infra", "tests")
SLEEP_IN_TEST = re.compile(r"^\s*(?:await )?(?:time|asyncio)\.sleep\((?!0\))")
HOME_PATH = re.compile(r"(?<![\w.])/(?:work|root|home/[a-z]+)/")


def python_files(root: Path, *folders: str) -> Iterator[Path]:
    """Python files below the folders, in order."""
    for folder in folders or SOURCES:
        yield from sorted((root / folder).rglob("*.py"))


def namespace_has_no_init(root: Path) -> Iterator[str]:
    """A gatebook/__init__.py in one portion would hide the others."""
    for folder in SOURCES:
        for path in (root / folder).glob("gatebook/__init__.py"):
            yield f"{path.relative_to(root)}: breaks the namespace package; delete it"


def portions_are_typed(root: Path) -> Iterator[str]:
    """Each portion tells type checkers that it has types."""
    for portion in PORTIONS:
        if not (root / portion / "py.typed").exists():
            yield f"{portion}: py.typed is missing"


def only_app_imports_faust(root: Path) -> Iterator[str]:
    """Everything below app.py is free of Faust."""
    for path in python_files(root, "schemas", "producers", "processors", "infra"):
        if path.name != "app.py" and re.search(
            r"^\s*(?:import|from) (?:faust|mode)\b", path.read_text(), re.MULTILINE
        ):
            yield f"{path.relative_to(root)}: only processors' app.py imports faust"


def modules_say_what_they_are(root: Path) -> Iterator[str]:
    """Every module of the product begins with a docstring."""
    for path in python_files(root, "schemas", "producers", "processors", "infra"):
        if not ast.get_docstring(ast.parse(path.read_text())):
            yield f"{path.relative_to(root)}: has no docstring"


def tests_have_sentences(root: Path) -> Iterator[str]:
    """Every test says in a sentence what a user can rely on."""
    for path in python_files(root, "tests"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_test = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
                node.name.startswith("test_")
            )
            if is_test and path.name != "conftest.py" and not ast.get_docstring(node):
                yield f"{path.relative_to(root)}:{node.lineno}: {node.name} has no docstring"


def tests_do_not_sleep(root: Path) -> Iterator[str]:
    """A test waits for a condition, never for time (helpers that poll live in tests/waiting.py)."""
    for path in python_files(root, "tests"):
        if path.name == "waiting.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if SLEEP_IN_TEST.match(line) and "# waits:" not in line:
                yield f"{path.relative_to(root)}:{number}: sleeps; await a condition"


def tests_do_not_skip(root: Path) -> Iterator[str]:
    """A missing engine is started, never skipped over."""
    for path in python_files(root, "tests"):
        if path.name == "test_tidy.py":
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"pytest\.(?:skip|importorskip|mark\.skip)", line):
                yield f"{path.relative_to(root)}:{number}: skips"


def nothing_speaks_of_machines(root: Path) -> Iterator[str]:
    """No path of somebody's machine in code or pages."""
    pages = [*root.glob("*.md"), *root.glob("*.toml"), root / "Makefile"]
    for path in [*python_files(root), *pages]:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if HOME_PATH.search(line) and path.name not in ("tidy.py", "test_tidy.py"):
                yield f"{path.relative_to(root)}:{number}: names a machine's path"


CHECKS: tuple[Callable[[Path], Iterator[str]], ...] = (
    namespace_has_no_init,
    portions_are_typed,
    only_app_imports_faust,
    modules_say_what_they_are,
    tests_have_sentences,
    tests_do_not_sleep,
    tests_do_not_skip,
    nothing_speaks_of_machines,
)


def problems(root: Path) -> list[str]:
    """Everything untidy below `root`."""
    return [problem for check in CHECKS for problem in check(root)]


if __name__ == "__main__":
    found = problems(Path(__file__).resolve().parent.parent)
    sys.stdout.write("".join(f"{line}\n" for line in found) or "tidy\n")
    sys.exit(bool(found))
