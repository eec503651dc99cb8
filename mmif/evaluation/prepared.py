"""An evaluation on prepared data: every method gets the same photographs with the same holes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmif import files
from mmif.data.dataset import PackedDataset
from mmif.evaluation import protocol, tables
from mmif.evaluation.distances import STLPIPS
from mmif.evaluation.methods import Method, baseline_method, model_method
from mmif.evaluation.protocol import Batch, HoleManifest
from mmif.evaluation.request import GUIDANCE, Bucket, PreparedOptions
from mmif.evaluation.tables import Report, Row, Scores
from mmif.host import device_name
from mmif.inpaint import Inpainter

OURS = {"none": "model", "oracle": "model (oracle)"}  # name of the model's rows, by guidance
_HOLE_GREY = 128  # of the hole in the strip


class PreparedEvaluation:
    """What is to be measured, loaded; :meth:`run` measures it.

    Args:
        options: the data, the methods, the draw.
        device: where the model computes.

    Raises:
        ValueError: no such data, split or weights, an empty split, or a model of another size than the data.
    """

    def __init__(self, options: PreparedOptions, device: torch.device) -> None:
        self.options, self.device = options, device
        self.data = PackedDataset(options.data, options.split)
        if not len(self.data):
            raise ValueError(
                f"the split {options.split} of {options.data} holds no photographs; choose another --split"
            )
        self.methods: dict[str, Method] = {name: baseline_method(name) for name in options.baselines}
        self.pipe = None
        if options.model:
            self.pipe = Inpainter.from_pretrained(options.model, device, seam=options.seam)
            if self.pipe.side != self.data.size:
                raise ValueError(
                    f"the model fills squares of {self.pipe.side} pixels, {options.data} holds {self.data.size}: "
                    f"prepare the photographs with --size {self.pipe.side}"
                )
            ours = OURS[options.guidance]
            self.methods[ours] = model_method(self.pipe, options.seed, oracle=options.guidance == "oracle")
        self.chosen = protocol.choose(len(self.data), options.n, options.seed)

    def describe(self) -> str:
        """What runs, with which guidance, on what."""
        options = self.options
        count = len(self.chosen)
        fewer = f" (--n asks for {options.n}, there are no more)" if options.n > count else ""
        return (
            f"{self.pipe.describe() if self.pipe else f'device {self.device} | no model'}\n"
            f"guidance {GUIDANCE[options.guidance]}\n"
            f"{count} photographs of {options.data} ({options.split}), seed {options.seed}{fewer}"
        )

    def run(self, distances: Mapping[str, STLPIPS]) -> Report:
        """Fill every hole with every method and measure it; ``distances`` are learned metrics by name."""
        options, manifest = self.options, HoleManifest()
        results = {str(bucket): {name: Scores() for name in self.methods} for bucket in options.ratios}
        strip: list[Row] = []
        with tqdm(total=len(options.ratios) * len(self.chosen), unit="photo", disable=None) as bar:
            for bucket in options.ratios:
                rows: list[Row] = []
                for batch in self._batches(bucket):
                    scores = results[str(bucket)]
                    filled = {name: _timed(method, batch, scores[name]) for name, method in self.methods.items()}
                    for name, candidate in filled.items():
                        scores[name].add(protocol.measure(batch.rgb, candidate, batch.hole, distances))
                    manifest.add(str(bucket), batch.keys, batch.hole)
                    if len(rows) < options.strip_rows:
                        rows += _rows(bucket, batch, filled)
                    bar.update(len(batch.keys))
                strip += rows[: options.strip_rows]
        wins = tables.wins(results, OURS[options.guidance]) if self.pipe and len(self.methods) > 1 else []
        holes = {"seed": options.seed, **manifest.summary()}
        return Report(results, self._facts(), holes, wins, strip=strip)

    def _batches(self, bucket: Bucket) -> Iterator[Batch]:
        options = self.options
        for start in range(0, len(self.chosen), options.batch):
            indices = self.chosen[start : start + options.batch]
            items = [self.data[i] for i in indices]
            keys = [item["key"] for item in items]
            yield Batch(
                keys,
                indices,
                torch.stack([item["image"] for item in items]).permute(0, 2, 3, 1).numpy(),
                np.stack([protocol.make_hole(self.data.size, bucket, key, options.seed) for key in keys]),
                torch.stack([item["seg"] for item in items]).numpy(),
                torch.cat([item["edge"] for item in items]).bool().numpy(),
            )

    def _facts(self) -> dict[str, Any]:
        info = self.pipe.info if self.pipe else {}
        return {
            "kind": "prepared data",
            "guidance": GUIDANCE[self.options.guidance],
            "model": {k: v for k, v in info.items() if k != "folder"},  # where it lay says nothing about it
            "device": device_name(self.device),
            "data": {
                "split": self.options.split,
                "n": len(self.chosen),
                "positions": self.chosen,  # in the split, in the order of the values per photograph
                "manifest_sha256": files.sha256(self.data.root / "manifest.json"),
            },
        }


def _timed(method: Method, batch: Batch, scores: Scores) -> NDArray[np.uint8]:
    """Fill a batch; its result is on the CPU, so nothing is still running when the clock is read."""
    start = time.perf_counter()
    filled = method(batch)
    scores.seconds.append((time.perf_counter() - start) / len(batch.keys))
    return filled


def _rows(bucket: Bucket, batch: Batch, filled: Mapping[str, NDArray[np.uint8]]) -> list[Row]:
    """One row of the strip for each photograph."""
    holed = protocol.composite(batch.rgb, np.full_like(batch.rgb, _HOLE_GREY), batch.hole)
    columns = [batch.rgb, holed, *filled.values()]
    return [(f"{bucket} %", [column[i] for column in columns]) for i in range(len(batch.keys))]
