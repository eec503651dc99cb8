"""Commands killed at random moments and started again: nothing is lost, nothing is corrupt, the end is the same.

    python tests/kill.py --kills 20 --seed 0        or   make kill

Each case runs once undisturbed. Then the same command is ended by SIGKILL at random moments, again and again; after
each kill all that lies there must be whole, and in the end the folder must be that of the undisturbed run: the same
bytes, weights, state and losses.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from networks import untrained_mobilenet
from PIL import Image
from tqdm import tqdm

from mmif import checkpoint
from mmif.config import from_preset
from mmif.model import MMInvertFill

TRAINING = ["--preset=tiny-32", "--batch=4", "--workers=0", "--snapshot-every=1", "--log-every=1", "--sample-every=2"]
PRELOADED = ["kill", "mmif.commands.train", "mmif.train.gan", "mmif.train.encoder", "mmif.commands.data"]


class Case(NamedTuple):
    """A command that may be killed."""

    name: str
    words: list[str]  # command and arguments; {out} is the folder to write
    whole: Callable[[Path], None]  # raises if what lies in the folder after a kill is damaged
    result: Callable[[Path], dict[str, Any]]  # what must be the same in the end


def start(words: list[str]) -> multiprocessing.process.BaseProcess:
    """Run a command in a process of its own, forked from one in which torch is loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    process = context.Process(target=_run, args=(words,))
    process.start()
    return process


def _run(words: list[str]) -> None:
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own would be left behind by each kill
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    if words[0] == "nothing":
        return
    if words[0] == "save":
        save_for_ever(Path(words[1]))
    importlib.import_module("mmif.train.perceptual").mobilenet_v2 = untrained_mobilenet
    importlib.import_module(f"mmif.commands.{words[0]}").main(words[1:])


def finish(words: list[str]) -> float:
    """Run a command to its end; returns its seconds."""
    started = time.monotonic()
    process = start(words)
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{' '.join(words)} ended with {process.exitcode}")
    return time.monotonic() - started


def torment(case: Case, out: Path, seconds: float, kills: int, rng: random.Random) -> int:
    """Start the command and kill it, ``kills`` times; returns how often it was still running.

    Each start goes on from what the last kill left; a command that ended before it was killed begins anew.
    """
    hits = 0
    for _ in range(kills):
        process = start([word.format(out=out) for word in case.words])
        process.join(rng.uniform(0, seconds))
        hit = process.is_alive()
        process.kill()
        process.join()
        case.whole(out)
        hits += hit
        if not hit:
            shutil.rmtree(out)
    return hits


def check(case: Case, folder: Path, kills: int, rng: random.Random) -> str:
    """Hold a case against its undisturbed run; AssertionError says what differs."""
    plain, killed = folder / f"{case.name}-plain", folder / f"{case.name}-killed"
    seconds = finish([word.format(out=plain) for word in case.words])
    hits = torment(case, killed, seconds, kills, rng)
    finish([word.format(out=killed) for word in case.words])
    case.whole(killed)
    expected, found = case.result(plain), case.result(killed)
    differs = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
    assert not differs, f"{case.name}: {', '.join(differs)} differ from the undisturbed run"
    assert not list(killed.rglob("*.part")), f"{case.name}: an unfinished file stayed"
    return f"{case.name}: {hits} of {kills} kills hit, nothing lost, the end is the same"


def photographs(folder: Path, count: int) -> Path:
    """Made-up photographs of 32 pixels with label maps of four labels."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        labels = np.kron(rng.integers(0, 4, (4, 4)), np.ones((8, 8))).astype(np.uint8)
        Image.fromarray(rng.integers(0, 255, (4, 3))[labels].astype(np.uint8)).save(folder / f"p{i:03d}.png")
        Image.fromarray(labels).save(folder / f"p{i:03d}_seg.png")
    return folder


def whole_json(*files: Path) -> None:
    for file in filter(Path.exists, files):
        json.loads(file.read_text())


def whole_run(out: Path) -> None:
    """What a killed training leaves."""
    whole_json(out / "config.json", out / "trainer" / "options.json")
    if (out / checkpoint.WEIGHTS).exists():
        checkpoint.read(out)
    if (out / "trainer" / "state.pt").exists():
        state = torch.load(out / "trainer" / "state.pt", weights_only=True)
        assert checkpoint.read_header(out)[1]["step"] - state["step"] in (0, 1)  # weights first, then the state
    for picture in (out / "samples").glob("*.png"):
        Image.open(picture).load()


def run_result(out: Path) -> dict[str, Any]:
    """Everything of a run but its hours."""
    rows = [json.loads(line) for line in (out / "trainer" / "log.jsonl").read_text().splitlines()]
    state = torch.load(out / "trainer" / "state.pt", weights_only=True)
    config, info, weights = checkpoint.read(out)
    return {
        "losses": [{k: v for k, v in row.items() if k != "hours"} for row in rows],
        "state": {k: _digest(v) for k, v in state.items() if k != "hours"},
        "weights": _digest(weights),
        "info": {"config": config, **info, "hours": None},
        "samples": files(out / "samples"),
    }


def _digest(value: Any) -> Any:
    """Tensors as their bytes, so that == compares them to the bit."""
    if isinstance(value, torch.Tensor):
        return value.dtype, tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {k: _digest(v) for k, v in value.items()}
    return [_digest(v) for v in value] if isinstance(value, (list, tuple)) else value


def files(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def whole_set(out: Path) -> None:
    """What a killed ``mmif-data prepare`` leaves: a manifest, and shards that are whole or not there."""
    whole_json(out / "manifest.json")
    for shard in out.rglob("*.tar"):
        assert shard.read_bytes().endswith(bytes(1024)), f"{shard} is cut"


def whole_pictures(out: Path) -> None:
    for picture in out.glob("*.png"):
        Image.open(picture).load()


def model_of(seed: int) -> MMInvertFill:
    torch.manual_seed(seed)
    return MMInvertFill(from_preset("tiny-32"))


def save_for_ever(out: Path) -> None:
    """Two models by turns under one name, until somebody ends it."""
    models = [model_of(seed) for seed in (0, 1)]
    while True:
        for seed, model in enumerate(models):
            checkpoint.save(model, out, config=model.config, extra={"stage": "encoder", "seed": seed})


def check_saves(folder: Path, kills: int, rng: random.Random) -> str:
    """Kill a process that saves without end: what is there is always one model with what was said of it."""
    expected = [_digest(model_of(seed).state_dict()) for seed in (0, 1)]
    out = folder / "saved"
    seen = []
    for _ in range(kills):
        process = start(["save", str(out)])
        deadline = time.monotonic() + 30
        while not (out / checkpoint.WEIGHTS).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.join(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        model, info = checkpoint.load(out)
        seen.append(info["seed"])
        assert _digest(model.state_dict()) == expected[info["seed"]], "weights of one model, words of the other"
    return f"checkpoint.save: killed {kills} times, whole each time ({seen.count(1)} times the second of two models)"


def cases(folder: Path, steps: int) -> Iterator[Case]:
    """What is killed, each case with what it needs made in ``folder``."""
    source = photographs(folder / "photographs", 40)
    prepare = ["data", "prepare", "--layout=folder", f"--from={source}", "--size=32", "--classes=4", "--workers=1"]
    yield Case("prepare", [*prepare, "--out={out}"], whole_set, files)
    packed, gan = folder / "prepare-plain", folder / "gan-plain"
    training = [f"--data={packed}", f"--steps={steps}", "--out={out}", *TRAINING]
    yield Case("gan", ["train", "gan", *training, "--pl-every=2"], whole_run, run_result)
    encoder = ["train", "encoder", *training, f"--generator={gan}", "--d-width=8"]
    yield Case("encoder", encoder, whole_run, run_result)
    model = folder / "encoder-plain"
    yield Case("publish", ["train", "publish", f"--run={model}", "--out={out}", "--overwrite"], whole_run, files)
    Image.fromarray(np.pad(np.full((12, 12), 255, np.uint8), 10)).save(folder / "mask.png")
    photos = folder / "photos"
    photos.mkdir()
    for file in sorted(source.glob("p???.png")):
        file.rename(photos / file.name)
    fill = ["inpaint", str(photos), str(folder / "mask.png"), "-o", "{out}", f"--model={model}"]
    yield Case("inpaint", [*fill, "--batch=1", "--device=cpu", "--skip-existing"], whole_pictures, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of each command (20)")
    parser.add_argument("--steps", type=int, default=8, help="steps of each training (8)")
    parser.add_argument("--seed", type=int, default=None, help="of the moments (random, and printed)")
    args = parser.parse_args()
    seed = random.randrange(2**32) if args.seed is None else args.seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    finish(["nothing"])  # the first start loads torch, and would be taken for a slow command
    with tempfile.TemporaryDirectory() as folder:
        for case in cases(Path(folder), args.steps):
            print(check(case, Path(folder), args.kills, rng), flush=True)
        print(check_saves(Path(folder), args.kills, rng))


if __name__ == "__main__":
    main()
