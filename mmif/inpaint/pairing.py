"""Which mask and which guidance belong to which photograph: by name, and never in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmif.images.decode import READ_SUFFIXES

_MASK = re.compile(r"(.+)_mask(\d*)")
_COMPANIONS = [re.compile(f"(.+)_{kind}") for kind in (r"mask\d*", "seg", "edge", "seg_mask", "edge_mask")]
_EXTRA = re.compile("(.+)_(seg|edge|strip)")  # what is written beside a result


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
            if (match or not same) and photos.keys().isdisjoint(_owners(mask)):  # its guidance may lie beside the mask
                lonely.append(mask.name)
            continue
        if pair.stem in pairs:
            raise ValueError(
                f"one mask must give one result; {pairs[pair.stem].mask.name} and {mask.name} clash; rename one"
            )
        pairs[pair.stem] = pair
    served = {pair.image for pair in pairs.values()}
    unserved = [path.name for path in photos.values() if path not in served]
    _refuse_lonely(f"every photograph in {images} must have a mask in {masks}", unserved)
    _refuse_lonely(f"every mask in {masks} must have a photograph in {images}", lonely)
    return sorted(pairs.values(), key=lambda pair: pair.stem)


def pair_results(pairs: Sequence[Pair], results: Path) -> list[tuple[Pair, Path]]:
    """Find what was made of each pair in the folder ``results``.

    A result has the stem of its pair, as ``mmif-inpaint`` writes it, or that of its photograph where that has one mask.
    The maps and strips that ``mmif-inpaint`` writes beside results are none.

    Raises:
        ValueError: two files for one pair, a pair without a result, or a result without a pair; the first five are
            listed.
    """
    masks = Counter(pair.image for pair in pairs)
    wanted = {pair.image.stem: pair for pair in pairs if masks[pair.image] == 1} | {pair.stem: pair for pair in pairs}
    found: dict[Pair, Path] = {}
    strays = []
    for file in _image_files(results):
        pair = wanted.get(file.stem)
        if pair in found:
            raise ValueError(f"a photograph must have one result; {found[pair].name} and {file.name} clash; remove one")
        if pair:
            found[pair] = file
        elif not (match := _EXTRA.fullmatch(file.stem)) or match[1] not in wanted:
            strays.append(file.name)
    missing = [pair.stem for pair in pairs if pair not in found]
    _refuse_lonely(f"every photograph with a mask must have a result in {results}", missing)
    _refuse_lonely(f"every result in {results} must have a photograph with a mask", strays)
    return [(pair, found[pair]) for pair in pairs]


def pair_guidance(
    source: Path | None, images: Sequence[Path], kind: str, *, maps: Path | None = None, whole: bool = True
) -> dict[Path, Path]:
    """Guidance of the photographs ``images``, all of one folder; those that have none are left out.

    ``source`` is one file for all, or a folder with ``a_<kind>.png`` for ``a.jpg``. Where no file is named so, it is
    ``a.png``, but for the folder of the photographs and that of ``maps``, in which ``a.png`` is something else.

    Args:
        source: file, folder or None.
        images: the photographs.
        kind: suffix of the stem, such as ``seg``, ``edge_mask``.
        maps: where the maps are whose masks these are.
        whole: ``images`` are all of their folder, so that nothing in ``source`` may belong to another.

    Raises:
        ValueError: two files for one photograph, or names without a photograph; the first five are listed.
    """
    if source is None:
        return {}
    if source.is_file():
        return dict.fromkeys(images, source)
    files = _image_files(source) if source.is_dir() else []
    named = [file for file in files if file.stem.endswith(f"_{kind}")]
    folder = images[0].parent
    bare = not named and source.resolve() not in (folder.resolve(), maps and maps.resolve())
    wanted = {image.stem if bare else f"{image.stem}_{kind}": image for image in images}
    found: dict[Path, Path] = {}
    for file in files:
        image = wanted.get(file.stem)
        if image in found:
            raise ValueError(f"{image} must have one file of guidance; {found[image]} and {file} clash; remove one")
        if image:
            found[image] = file
    if whole:
        stems = {image.stem for image in images}
        strays = [file for file in files if stems.isdisjoint([file.stem, *_owners(file)])] if bare else named
        lonely = [file.name for file in strays if file.stem not in wanted]
        _refuse_lonely(f"every file of guidance in {source} must have a photograph in {folder}", lonely)
    return found


def _photographs(folder: Path, masks: Path) -> dict[str, Path]:
    """Stem -> file of all photographs; companions (``a_mask.png`` beside ``a.jpg``) and the masks are none."""
    files = [file for file in _image_files(folder) if file.resolve() != masks.resolve()]
    stems = {file.stem for file in files}
    same = folder.resolve() == masks.resolve()
    photos: dict[str, Path] = {}
    for file in files:
        owners = _owners(file)
        if owners and (same or not stems.isdisjoint(owners)):
            continue
        if file.stem in photos:
            raise ValueError(f"photographs need different stems; {photos[file.stem].name} and {file.name} share one")
        photos[file.stem] = file
    if not photos:
        raise ValueError(f"the folder {folder} must hold photographs ({', '.join(sorted(READ_SUFFIXES))}); it has none")
    return photos


def _owners(file: Path) -> list[str]:
    """Stems of the photographs whose companion ``file`` may be: ``a_seg_mask.png`` is one of ``a`` or of ``a_seg``."""
    return [match[1] for pattern in _COMPANIONS if (match := pattern.fullmatch(file.stem))]


def _image_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise ValueError(f"a file or folder must exist at {folder}; none is there")
    files = (path for path in folder.iterdir() if path.suffix.lower() in READ_SUFFIXES and path.is_file())
    return sorted((file for file in files if not file.name.startswith(".")), key=lambda file: file.name)


def _refuse_lonely(rule: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise ValueError(f"{rule}; {len(names)} have none: {', '.join(names[:5])}{more}; rename or remove them")
