"""The commands that set up, check and test: what they are called, what they need, in which order they run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.search(r"^\.PHONY: help (.*)$", MAKEFILE, re.MULTILINE)[1].split()


def make(*arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def steps() -> list[str]:
    return re.findall(r"^step make .*?(\w+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)


def test_make_help_tells_every_target_in_the_order_of_the_makefile():
    assert re.findall(r"^make (\w+) ", make("--silent", "help"), re.MULTILINE) == TARGETS


def test_the_readme_has_the_two_commands_of_ci():
    readme = (ROOT / "README.md").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^make {target}\b", readme, re.MULTILINE)
        assert target in steps()


def test_ci_checks_style_and_types_first_and_prints_the_tests_last():
    assert steps()[:2] == ["lint", "types"]
    assert steps()[-1] == "test"


def test_style_and_types_install_no_torch(tmp_path: Path):
    """Nor mmif itself, which needs it; what make would run on a bare machine is what it prints here."""
    planned = make("--dry-run", "lint", "types", f"TOOLS={tmp_path / 'tools'}", f"VENV={tmp_path / 'venv'}")
    installed = [line for line in planned.splitlines() if " pip " in line]
    assert installed
    assert [line for line in installed if re.search(r"torch|editable|\s\.(\s|$)", line)] == []
    assert str(tmp_path / "venv") not in planned


def test_the_hosted_workflow_runs_the_same_and_nothing_else():
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"^ +- run: (.*)$", workflow, re.MULTILINE) == ["bash .ci/run"]
    assert "secrets" not in workflow
    for action in re.findall(r"uses: (.*)$", workflow, re.MULTILINE):
        assert re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action), f"{action} is not pinned to a commit"
