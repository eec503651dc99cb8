"""Which mask and which guidance belong to which photograph: by name, and never in silence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmif.imagefile import READ_SUFFIXES

_MASK = re.compile(r"(.+)_mask(\d*)")
_COMPANION = re.compile(r"(.+)_(mask\d*|seg|edge|seg_mask|edge_mask)")


@dataclass(frozen=True, slots=True)
class Pair:
    """A photograph, its mask, and the stem of what comes of them."""

    image: Path
    mask: Path
    stem: str


def pair_masks(images: Path, masks: Path) -> list[Pair]:
    """Pair the photographs in folder ``images`` with their masks.

    ``masks`` is one file for all, or a folder (the same one, too) with ``a_mask.png``, ``a_mask000.png``,
    ``a_mask001.png``, .. or, in another folder, ``a.png`` for the photograph ``a.jpg``. Of several masks each gives a
    result, named after the mask.

    Raises:
        ValueError: no photographs, two of one stem, or names without a partner; the first five are listed.
    """
    same = images.resolve() == masks.resolve()
    photos = _photographs(images, masks)
    if masks.is_file():
        return [Pair(image, masks, stem) for stem, image in photos.items()]
    pairs: dict[str, Pair] = {}
    lonely = []
    for mask in _image_files(masks):
        match = _MASK.fullmatch(mask.stem)
        if match and match[1] in photos:
            pair = Pair(photos[match[1]], mask, mask.stem if match[2] else match[1])
        elif not same and mask.stem in photos:
            pair = Pair(photos[mask.stem], mask, mask.stem)
        else:
            lonely += [mask.name] if match or not same else []
            continue
        if pair.stem in pairs:
            raise ValueError(
                f"one mask must give one result; {pairs[pair.stem].mask.name} and {mask.name} clash; rename one"
            )
        pairs[pair.stem] = pair
    served = {pair.image for pair in pairs.values()}
    unserved = [path.name for path in photos.values() if path not in served]
    _refuse(f"every photograph in {images} must have a mask in {masks}", unserved)
    _refuse(f"every mask in {masks} must have a photograph in {images}", lonely)
    return sorted(pairs.values(), key=lambda pair: pair.stem)


def find_guidance(source: Path | None, image: Path, kind: str) -> Path | None:
    """Guidance file for ``image``: ``source`` itself if it is a file, else by name in that folder; None if missing.

    Args:
        source: file, folder or None.
        image: the photograph.
        kind: suffix of the stem, such as ``seg``, ``edge_mask``.
    """
    if source is None or source.is_file():
        return source
    stems = [f"{image.stem}_{kind}"] + ([] if source.resolve() == image.parent.resolve() else [image.stem])
    return next((source / f"{stem}.png" for stem in stems if (source / f"{stem}.png").is_file()), None)


def _photographs(folder: Path, masks: Path) -> dict[str, Path]:
    """Stem -> file of all photographs; companions (``a_mask.png`` beside ``a.jpg``) and the masks are none."""
    files = [file for file in _image_files(folder) if file.resolve() != masks.resolve()]
    stems = {file.stem for file in files}
    same = folder.resolve() == masks.resolve()
    photos: dict[str, Path] = {}
    for file in files:
        match = _COMPANION.fullmatch(file.stem)
        if match and (same or match[1] in stems):
            continue
        if file.stem in photos:
            raise ValueError(f"photographs need different stems; {photos[file.stem].name} and {file.name} share one")
        photos[file.stem] = file
    if not photos:
        raise ValueError(f"the folder {folder} must hold photographs ({', '.join(sorted(READ_SUFFIXES))}); it has none")
    return photos


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"a file or folder must exist at {folder}; none is there")
    files = (
        path for path in folder.iterdir() if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".")
    )
    return sorted(files, key=lambda path: path.name)


def _refuse(rule: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{rule}; {len(names)} have none: {', '.join(names[:5])}{more}; rename or remove them")
