"""Malformed files through the public entry points: a result, or an error of one line that says what is wrong.

    python tests/fuzz.py --seconds 600 --seed 0        or   make fuzz

Each round takes a file that is right, damages it somewhere, and gives it to what reads such files. Another exception
than ValueError, OSError or TypeError, a message of more than one line, or more than ten seconds is a failure; the file
is kept. The same seed damages the same files in the same way.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import random
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from fake_model import FakeModel
from PIL import Image

from mmif import Inpainter, checkpoint
from mmif.config import from_preset
from mmif.data.dataset import PackedDataset
from mmif.data.prepare import prepare
from mmif.data.settings import Settings
from mmif.model import MMInvertFill

SIZE = (48, 40)
SLOW = 10.0  # seconds
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**64,
    10**19,
    1e9,
    0.5,
    float("inf"),
    float("nan"),
    "",
    "../x",
    "\0",
    [],
    {},
]
ODD_INTEGERS = [0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


class Target(NamedTuple):
    """What reads a file."""

    name: str
    file: Path  # where the damaged copy is put
    seeds: list[bytes]  # right ones
    damage: Callable[[bytes, random.Random], bytes]
    read: Callable[[], object]


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or moved."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(out) + 1)
        length = rng.choice([1, 2, 4, 8, 64])
        match rng.randrange(6):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(ODD_INTEGERS))
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length]
            case 4:
                out[at:at] = rng.randbytes(length)
            case _ if rng.random() < 0.2:
                del out[at:]
    return bytes(out)


def damaged_json(data: bytes, rng: random.Random) -> bytes:
    """Values of another kind or size, keys that are missing or new; now and then bytes."""
    if rng.random() < 0.2:
        return damaged(data, rng)
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2])):
        value = _changed(value, rng)
    return json.dumps(value).encode()


def _changed(value: Any, rng: random.Random) -> Any:
    if not isinstance(value, dict | list) or not value or rng.random() < 0.1:
        return rng.choice(ODD) if rng.random() < 0.9 else json.loads("[" * 50 + "]" * 50)
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = rng.choice(keys)
    if isinstance(value, dict) and rng.random() < 0.1:
        return {name: inner for name, inner in value.items() if name != key}
    if isinstance(value, dict) and rng.random() < 0.1:
        return {**value, "other": rng.choice(ODD)}
    changed = value.copy()
    changed[key] = _changed(value[key], rng)
    return changed


def damaged_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header changed as JSON, with its length put right, or any bytes."""
    if rng.random() < 0.4:
        return damaged(data, rng)
    length = struct.unpack("<Q", data[:8])[0]
    header = damaged_json(data[8 : 8 + length].rstrip(b" "), rng)
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def pictures() -> list[bytes]:
    """One photograph in many formats and modes, with and without EXIF."""
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 3), np.uint8)
    photo = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "RGB", {"exif": exif, "dpi": (300, 300)}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 3}),
        ("PNG", "I;16", {}),
        ("PNG", "1", {}),
        ("PNG", "LA", {"icc_profile": b"rubbish"}),
        ("JPEG", "RGB", {"exif": exif, "comment": b"said"}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "L", {"progressive": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}),
        ("TIFF", "I;16", {}),
        ("WEBP", "RGB", {"exif": exif}),
        ("GIF", "P", {}),
        ("BMP", "RGB", {}),
    ]
    return [_encoded(photo, *kind) for kind in kinds]


def _encoded(photo: Image.Image, form: str, mode: str, options: dict[str, Any]) -> bytes:
    image = (
        Image.fromarray(np.asarray(photo.convert("L")).astype(np.uint16) * 257)
        if mode == "I;16"
        else photo.convert(mode)
    )
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def targets(folder: Path) -> list[Target]:
    """All that reads files; what is right lies in ``folder``."""
    seeds, pipe = pictures(), Inpainter(FakeModel())
    right = {name: folder / f"{name}.png" for name in ("image", "mask", "segmentation", "edge")}
    Image.open(io.BytesIO(seeds[0])).convert("RGB").save(right["image"])
    mask = np.zeros(SIZE[::-1], np.uint8)
    mask[10:20, 10:30] = 255
    for name in ("mask", "edge"):
        Image.fromarray(mask).save(right[name])
    Image.fromarray(mask // 255).save(right["segmentation"])
    companions = [*seeds, *(file.read_bytes() for file in right.values())]

    def fill(name: str) -> Callable[[], object]:
        files: dict[str, Any] = {**right, name: folder / f"damaged_{name}"}
        return lambda: pipe(**files).save(folder / "out.png")

    found = [Target(name, folder / f"damaged_{name}", companions, damaged, fill(name)) for name in right]
    model = folder / "model"
    config = from_preset("tiny-32")
    checkpoint.save(MMInvertFill(config), model, config=config, extra={})
    for file in sorted(model.iterdir()):
        if file.suffix in (".json", ".safetensors"):
            damage = damaged_json if file.suffix == ".json" else damaged_safetensors
            found.append(Target(file.name, file, [file.read_bytes()], damage, lambda: checkpoint.load(model)))
    photos = folder / "photos"
    photos.mkdir()
    for number in range(40):
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC).save(photos / f"{number}.png")
    packed = folder / "packed"
    prepare(photos, packed, Settings("folder", size=32, seg="none"), progress=False)
    manifest = packed / "manifest.json"

    def items() -> None:
        for split in ("train", "val"):
            dataset = PackedDataset(packed, split)
            for index in range(len(dataset)):
                dataset[index]

    found.append(Target(manifest.name, manifest, [manifest.read_bytes()], damaged_json, items))
    shard = next(iter(sorted((packed / "train").glob("*.tar"))))
    return [*found, Target("shard", shard, [shard.read_bytes()], damaged, items)]


def attempt(target: Target, seed: str) -> str | None:
    """Read one damaged file; the failure, in words, or None. The right file lies there again afterwards."""
    rng = random.Random(seed)
    before = target.file.read_bytes() if target.file.exists() else None
    target.file.write_bytes(target.damage(rng.choice(target.seeds), rng))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read()
        failure = None
    except (ValueError, OSError, TypeError) as error:
        failure = f"a message of several lines: {error!r}" if "\n" in str(error) else None
    except Exception as error:  # the whole point: nothing else may come out
        failure = f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - start
    if failure is None and seconds > SLOW:
        failure = f"{seconds:.0f} seconds"
    if failure:
        target.file.with_name(f"failed_{target.name}_{seed}").write_bytes(target.file.read_bytes())
    if before is None:
        target.file.unlink()
    else:
        target.file.write_bytes(before)
    return failure


def rounds(
    found: list[Target], seed: int, seconds: float, most: int | None = None
) -> Iterator[tuple[str, str, str | None]]:
    """Target, seed and failure of each attempt, the targets in turn, until the time or the number is spent."""
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end and (most is None or number < most):
        target = found[number % len(found)]
        case = f"{seed}-{number}"
        yield target.name, case, attempt(target, case)
        number += 1


def main(words: list[str] | None = None) -> None:
    """Fuzz, print what failed and how often what was tried; exit 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for the files that failed")
    args = parser.parse_args(words)
    logging.getLogger("mmif").setLevel(logging.ERROR)  # notes are no failures
    tried, failed = Counter(), Counter()
    with tempfile.TemporaryDirectory() as name:
        for target, case, failure in rounds(targets(Path(name)), args.seed, args.seconds):
            tried[target] += 1
            if failure:
                failed[target] += 1
                print(f"{target}, case {case}: {failure}", flush=True)
        if args.keep:
            args.keep.mkdir(parents=True, exist_ok=True)
            for file in Path(name).rglob("failed_*"):
                (args.keep / file.name).write_bytes(file.read_bytes())
    print(
        f"{sum(tried.values())} files, {sum(failed.values())} failures: "
        + ", ".join(f"{n} {t}" for t, n in tried.items())
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
