"""This machine: what is missing of it."""

from __future__ import annotations

import platform

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
