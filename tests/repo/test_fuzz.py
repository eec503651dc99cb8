"""A short, seeded part of ``make fuzz``, and the fuzzer itself."""

from __future__ import annotations

import json
import random
from pathlib import Path

import fuzz
import pytest


def test_malformed_files_give_a_result_or_an_error_of_one_line(tmp_path: Path):
    found = fuzz.targets(tmp_path)
    assert len(found) >= 8
    tried = list(fuzz.rounds(found, seed=7, seconds=60, most=8 * len(found)))
    assert [case for case in tried if case[2]] == []
    assert {name for name, _, _ in tried} == {target.name for target in found}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("count"), "KeyError: 'count'"),
        (RecursionError("deep"), "RecursionError: deep"),
        (ValueError("one\ntwo"), "a message of several lines"),
        (ValueError("one line"), None),
        (OSError("one line"), None),
        (None, None),
    ],
)
def test_what_must_not_come_out_is_a_failure_and_its_file_is_kept(tmp_path: Path, error, said):
    def read() -> None:
        assert (tmp_path / "file").read_bytes() != b"right"
        if error:
            raise error

    (tmp_path / "file").write_bytes(b"right")
    target = fuzz.Target("file", tmp_path / "file", [b"right"], lambda data, rng: data + b"!", read)
    failure = fuzz.attempt(target, "0-0")
    assert said in failure if said else failure is None
    assert (tmp_path / "file").read_bytes() == b"right"
    assert [file.read_bytes() for file in tmp_path.glob("failed_*")] == ([b"right!"] if said else [])


def test_the_same_seed_damages_in_the_same_way_and_hardly_ever_not_at_all():
    data = json.dumps({"a": [1, 2.5, {"b": None}], "c": "text"}).encode()
    for damage in (fuzz.damaged, fuzz.damaged_json):
        once, again = ([damage(data, random.Random(seed)) for seed in range(200)] for _ in range(2))
        assert once == again
        assert sum(changed != data for changed in once) > 180
        assert len(set(once)) > 80


def test_a_damaged_header_of_safetensors_has_its_right_length():
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    data = len(header).to_bytes(8, "little") + header + b"\0\0\0\0"
    whole = 0
    for seed in range(100):
        changed = fuzz.damaged_safetensors(data, random.Random(seed))
        length = int.from_bytes(changed[:8], "little")
        whole += changed[8 + length :] == b"\0\0\0\0" and length != len(header)
    assert whole > 30
