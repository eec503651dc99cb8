"""This machine: what is missing of it, and which code a number was measured with."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

from mmif import host


def test_versions_are_those_of_this_environment():
    found = host.versions()
    assert found["python"] == platform.python_version()
    assert found["torch"] == host.version("torch")
    assert host.version("no-such-distribution") is None


def test_missing_extras_are_named(monkeypatch):
    requirements = [
        "torch>=2.11",
        "absent-a>=1; extra == 'eval'",
        'absent-b[x]<2; extra == "eval"',
        "pytest; extra == 'dev'",
    ]
    monkeypatch.setattr(host.metadata, "requires", lambda _: requirements)
    assert host.missing_extras() == {"eval": ["absent-a", "absent-b"]}


def test_an_extra_is_installed_from_where_the_package_is(tmp_path, monkeypatch):
    assert host.install_line("train") == "pip install -e '.[train]'"
    monkeypatch.setattr(host, "__file__", str(tmp_path / "mmif/host.py"))
    assert host.install_line("train") == "pip install 'mminvertfill[train]'"


def test_the_commit_says_whether_the_code_has_changes(tmp_path: Path, monkeypatch):
    code, result = tmp_path / "mmif" / "host.py", tmp_path / "benchmarks" / "results" / "a.json"
    for path in (code, result):
        path.parent.mkdir(parents=True)
        path.write_text("1")
    monkeypatch.setattr(host, "__file__", str(code))
    assert host.commit() is None, "without a checkout nobody knows, and nothing is called clean"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    clean = host.commit()
    assert clean == host.output(*git, "rev-parse", "--short=12", "HEAD")
    result.write_text("2")
    assert host.commit() == clean
    code.write_text("2")
    assert host.commit() == f"{clean}-dirty"
    (tmp_path / ".git" / "HEAD").unlink()
    assert host.commit() is None


def test_a_program_that_is_not_there_or_fails_says_nothing():
    assert host.output("no-such-program") is None
    assert host.output("git", "no-such-command") is None
