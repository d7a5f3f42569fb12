"""Each check of infra/tidy.py goes red on a planted failure, and the tree itself is clean."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load_tidy() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tidy", ROOT / "infra" / "tidy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tidy = load_tidy()

PLANTED = {
    "namespace_has_no_init": ("schemas/gatebook/__init__.py", ""),
    "only_app_imports_faust": ("processors/gatebook/processors/x.py", '"""x"""\nimport faust\n'),
    "modules_say_what_they_are": ("producers/gatebook/producers/x.py", "x = 1\n"),
    "tests_have_sentences": ("tests/unit/test_x.py", "def test_x():\n    assert 1\n"),
    "tests_do_not_sleep": ("tests/unit/test_x.py", "    time.sleep(1)\n"),
    "tests_do_not_skip": ("tests/unit/test_x.py", "pytest.skip('no engine')\n"),
    "nothing_speaks_of_machines": ("schemas/gatebook/schemas/x.py", 'X = "/root/x"\n'),
}


def planted_tree(root: Path, path: str, text: str) -> Path:
    for portion in tidy.PORTIONS:
        (root / portion).mkdir(parents=True)
        (root / portion / "py.typed").touch()
    (root / "Makefile").touch()
    if path:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


def test_the_tree_is_tidy() -> None:
    """Nothing is left lying about."""
    assert tidy.problems(ROOT) == []


@pytest.mark.parametrize("check", sorted(PLANTED))
def test_a_planted_failure_is_found(check: str, tmp_path: Path) -> None:
    """A check that cannot fail checks nothing."""
    path, text = PLANTED[check]
    found = list(getattr(tidy, check)(planted_tree(tmp_path, path, text)))
    assert len(found) == 1
    assert path in found[0]


def test_a_portion_without_types_is_found(tmp_path: Path) -> None:
    """py.typed is missed where it is missing."""
    root = planted_tree(tmp_path, "", "")
    (root / tidy.PORTIONS[0] / "py.typed").unlink()
    assert len(list(tidy.portions_are_typed(root))) == 1


def test_every_check_has_a_planted_failure() -> None:
    """A new check comes with a proof that it can go red."""
    names = {check.__name__ for check in tidy.CHECKS}
    assert names == {*PLANTED, "portions_are_typed"}
