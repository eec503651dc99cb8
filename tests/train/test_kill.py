"""A short, seeded part of ``make kill``: commands ended by SIGKILL lose nothing and end the same."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import kill
import pytest


@pytest.fixture(scope="module", autouse=True)
def _started() -> None:
    kill.finish(["nothing"])  # loads torch once, in the process that all others are forked from


def test_killed_commands_end_as_undisturbed_ones(tmp_path: Path):
    rng = random.Random(3)
    for case in islice(kill.cases(tmp_path, steps=3), 2):  # prepare and gan
        assert kill.check(case, tmp_path, kills=2, rng=rng).endswith("nothing lost, the end is the same")


def test_a_checkpoint_is_one_model_whenever_its_writer_is_killed(tmp_path: Path):
    assert "whole each time" in kill.check_saves(tmp_path, kills=4, rng=random.Random(1))


def test_what_a_kill_would_damage_is_noticed(tmp_path: Path):
    """The check itself: another end, and an unfinished file that stays."""
    case = next(kill.cases(tmp_path, steps=1))
    with pytest.raises(AssertionError, match=r"^prepare: manifest\.json differ from the undisturbed run"):
        kill.check(case._replace(result=lambda out: {"manifest.json": out.name}), tmp_path, 0, random.Random(0))
    (tmp_path / "prepare-killed" / "left.part").write_text("")
    with pytest.raises(AssertionError, match="an unfinished file stayed"):
        kill.check(case._replace(result=lambda out: {}), tmp_path, 0, random.Random(0))
