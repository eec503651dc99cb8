import json
from pathlib import Path

import numpy as np
import pytest

from mmif.evaluation import protocol, tables
from mmif.evaluation.distances import NETS
from mmif.evaluation.request import DISTANCES, Bucket


def test_the_hash_of_the_holes_knows_every_pixel_but_no_order():
    holes, keys = np.zeros((2, 32, 32), bool), ["a", "b"]
    holes[:, 8:24, 8:24] = True

    def digest(keys: list[str], holes: np.ndarray, bucket: str = "10-30") -> str:
        manifest = protocol.HoleManifest()
        for key, hole in zip(keys, holes, strict=True):
            manifest.add(bucket, [key], hole[None])
        return manifest.summary()["sha256"]

    holes[1, 0, 0] = True
    first = digest(keys, holes)
    assert digest(keys[::-1], holes[::-1]) == first
    changed = holes.copy()
    changed[0, 0, 0] = True
    assert len({first, digest(keys, changed), digest(keys[::-1], holes), digest(keys, holes, "40-60")}) == 4


def test_photographs_are_drawn_evenly_and_a_larger_n_only_adds():
    assert protocol.choose(100, 20, 0) == protocol.choose(100, 50, 0)[:20]
    assert sorted(protocol.choose(100, 200, 0)) == list(range(100))
    assert protocol.choose(100, 20, 0) != protocol.choose(100, 20, 1)


def test_holes_differ_between_photographs_and_buckets():
    holes = [protocol.make_hole(64, Bucket(40, 60), key, 0) for key in ("a", "b")]
    assert not np.array_equal(*holes)
    assert np.array_equal(holes[0], protocol.make_hole(64, Bucket(40, 60), "a", 0))
    assert all(0.4 <= hole.mean() <= 0.6 for hole in holes)


def test_a_report_is_strict_json_and_written_whole(tmp_path: Path):
    path = tmp_path / "out.json"
    tables.write_json(path, {"values": [0.25, 1.0, -3.5e-05], "text": "kept  as\tit is"})
    assert json.loads(path.read_text()) == {"values": [0.25, 1.0, -3.5e-05], "text": "kept  as\tit is"}
    with pytest.raises(ValueError, match="JSON"):
        tables.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text())["values"][0] == 0.25
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]


def test_every_learned_distance_can_be_asked_for_and_shown():
    assert [f"stlpips-{net}" for net in NETS] == [*DISTANCES]
    assert set(DISTANCES) < set(tables.METRICS)
