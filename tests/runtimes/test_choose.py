"""Which runtimes there are, and what is said of those that cannot serve."""

from __future__ import annotations

import pytest

from mmif.runtimes import choose


def test_the_table_is_complete():
    reasons = dict(choose.table())
    assert list(reasons) == list(choose.RUNTIMES)
    assert reasons["eager"] is None
    assert reasons["compile"] == "this version of mmif has no compile runtime yet"


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^a runtime must be one of eager, .*tensorrt, got 'quick'$"):
        choose.why_not("quick")


def test_the_first_runtime_that_is_usable_is_chosen(monkeypatch):
    assert choose.choose() == "eager"
    probes = {"first": lambda: "it is not installed", "second": lambda: None, "third": lambda: None}
    monkeypatch.setattr(choose, "RUNTIMES", probes)
    assert choose.choose() == "second"
    assert choose.table() == [("first", "it is not installed"), ("second", None), ("third", None)]
