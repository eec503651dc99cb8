"""The harness of ``make mutants``: what it changes, and that it tells tests which notice from tests which do not."""

from __future__ import annotations

import ast
from pathlib import Path

import mutants
import pytest

SOURCE = '''"""Text."""
from __future__ import annotations
LIMIT = 3


def inside(value: int, strict: bool = True) -> bool:
    """Is it?"""
    if strict and value < LIMIT:
        print(value)
        return value + 1 in range(2 // 1)
    return open(value, formats=LIMIT)
'''


def test_each_kind_of_fault_is_made_once_for_each_place():
    faults = [mutants.mutant("m.py", SOURCE, place) for place in mutants.places(SOURCE)]
    found = {(fault.line, fault.before, fault.after) for fault in faults}
    condition, body = "strict and value < LIMIT", "print(value) return value + 1 in range(2 // 1)"
    assert found == {
        (3, "3", "4"),
        (6, "True", "False"),
        (8, "strict and value < LIMIT", "strict or value < LIMIT"),
        (8, "value < LIMIT", "value <= LIMIT"),
        (8, f"if {condition}: {body}", f"if not ({condition}): {body}"),
        (9, "print(value)", "None"),
        (10, "return value + 1 in range(2 // 1)", "return None"),
        (10, "value + 1 in range(2 // 1)", "value + 1 not in range(2 // 1)"),
        (10, "value + 1", "value - 1"),
        (10, "1", "2"),
        (10, "2 // 1", "2 * 1"),
        (10, "2", "3"),
        (11, "return open(value, formats=LIMIT)", "return None"),
        (11, "formats=LIMIT", "formats=None"),
    }
    assert len(faults) == len(found) + 1  # 1 stands twice in line 10
    different = {ast.dump(ast.parse(source)) for source in (SOURCE, *(fault.source for fault in faults))}
    assert len(different) == len(faults) + 1


def test_a_sample_is_seeded_and_takes_from_each_module_in_turn():
    modules = ["mmif/files.py", "mmif/config.py"]
    drawn = mutants.sample(6, 1, modules)
    assert drawn == mutants.sample(6, 1, modules) != mutants.sample(6, 2, modules)
    assert [fault.module for fault in drawn] == modules * 3


def test_all_modules_and_their_tests_are_there():
    for module, tests in mutants.TESTS.items():
        assert (mutants.ROOT / module).is_file()
        assert [test for test in tests if not (mutants.ROOT / test).exists()] == []
    images = {path.stem for path in (mutants.ROOT / "mmif" / "images").glob("*.py")} - {"__init__"}
    assert images == {Path(module).stem for module in mutants.TESTS if module.startswith("mmif/images/")}


def test_what_is_called_equivalent_is_in_the_code_and_has_a_reason():
    for (module, before, after), reason in mutants.EQUIVALENT.items():
        source = (mutants.ROOT / module).read_text()
        faults = (mutants.mutant(module, source, place) for place in mutants.places(source))
        assert any((fault.before, fault.after) == (before, after) for fault in faults)
        assert len(reason) > 10


@pytest.mark.parametrize(("check", "found"), [("double(2) == 4", False), ("double(3) == 6", True)])
def test_tests_that_notice_are_told_from_tests_that_do_not(tmp_path: Path, monkeypatch, check, found):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "doubled.py").write_text("def double(x):\n    return x + x\n")
    (tmp_path / "test_doubled.py").write_text(f"from doubled import double\ndef test(): assert {check}\n")
    right = (tmp_path / "doubled.py").read_text()
    fault = mutants.Mutant("doubled.py", 2, "x + x", "x * x", "def double(x):\n    return x * x\n")
    assert not mutants.noticed(tmp_path, ["test_doubled.py"], 60)
    assert mutants.judge(fault, tmp_path, ["test_doubled.py"], 60) == found
    assert (tmp_path / "doubled.py").read_text() == right


def test_a_test_that_does_not_end_has_noticed(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    (tmp_path / "test_endless.py").write_text("def test():\n    while True: pass\n")
    assert mutants.noticed(tmp_path, ["test_endless.py"], 3)
