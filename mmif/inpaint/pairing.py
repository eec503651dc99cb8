"""Which mask, guidance and result belong to which photograph: by name, and never in silence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmif.files import real, some
from mmif.images.folder import look_into

_MASK = re.compile(r"(.+)_mask(\d*)")
_COMPANIONS = [re.compile(f"(.+)_{kind}") for kind in (r"mask\d*", "seg", "edge", "seg_mask", "edge_mask")]
_EXTRA = re.compile("(.+)_(seg|edge|strip)")  # what is written beside a result


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs by their names: the stem, below folders of ``root`` with those before it (``trip/a``).

    Attributes:
        files: name -> file.
        root: the folder whose photographs these are, all of them; None: they were listed one by one.
        recursive: folders of ``root`` count, and those of the folders in which something is looked for.
    """

    files: dict[str, Path]
    root: Path | None = None
    recursive: bool = False

    def named(self, folder: Path) -> list[tuple[str, Path]]:
        """(name, file) of every picture in another folder, in order."""
        return _named(folder, self.recursive)

    def lie_in(self, folder: Path) -> bool:
        """Whether ``folder`` is one that the photographs come from."""
        folders = {self.root} if self.root else {file.parent for file in self.files.values()}
        return real(folder) in {real(each) for each in folders}

    def __str__(self) -> str:
        return str(self.root or "the list")


@dataclass(frozen=True, slots=True)
class Pair:
    """A photograph, its mask, and the stem of what comes of them; below folders it has those before it."""

    image: Path
    mask: Path
    stem: str


def find_photographs(
    images: Path | Sequence[Path],
    masks: Path | None = None,
    *,
    recursive: bool = False,
    results: Path | None = None,
) -> Photographs:
    """The photographs of a folder, or those of a list; companions (``a_mask.png`` beside ``a.jpg``) are none.

    Args:
        images: a folder, or files.
        masks: file or folder of the masks, which are no photographs.
        recursive: look into the folders of the folder, too.
        results: folder of the results, which are none either.

    Raises:
        ValueError: there are none, one is missing, or two have one name.
    """
    if isinstance(images, Path):
        root, named = images, _named(images, recursive)
        inner = [real(path) for path in (masks, results) if path and real(images) in real(path).parents]
    else:
        root, named = None, [(file.stem, file) for file in images]
        inner = [real(masks)] if masks and masks.is_file() else []
    named = [(name, file) for name, file in named if {real(file), *real(file).parents}.isdisjoint(inner)]
    beside = masks is not None and Photographs(dict(named), root).lie_in(masks)
    names = {name for name, _ in named}
    photos: dict[str, Path] = {}
    for name, file in named:
        owners = _owners(name)
        if owners and (beside or not names.isdisjoint(owners)):
            continue
        if name in photos:
            raise ValueError(f"{photos[name]} and {file} would make one result; rename one")
        if not file.is_file():
            what = f"{file} is a folder; name it alone" if file.is_dir() else f"no photograph at {file}; check the path"
            raise ValueError(what)
        photos[name] = file
    if not photos:
        raise ValueError(
            f"there are no photographs in {root or 'the list'}; name a folder of PNG, JPEG or other pictures"
        )
    return Photographs(photos, root, recursive)


def pair_masks(images: Path | Photographs, masks: Path) -> list[Pair]:
    """Pair photographs, or those of a folder, with their masks.

    ``masks`` is one file for all, or a folder (that of the photographs, too) with ``a_mask.png``, ``a_mask000.png``,
    ``a_mask001.png``, .. or, in another folder, ``a.png`` for the photograph ``a.jpg``. Of several masks each gives a
    result, named after the mask.

    Raises:
        ValueError: no photographs, two of one name, or names without a partner; the first five are listed.
    """
    photos = images if isinstance(images, Photographs) else find_photographs(images, masks)
    files = photos.files
    if masks.is_file():
        return [Pair(image, masks, name) for name, image in files.items()]
    beside, originals = photos.lie_in(masks), {real(file) for file in files.values()}
    pairs: dict[str, Pair] = {}
    lonely = []
    for name, mask in photos.named(masks):
        match = _MASK.fullmatch(name)
        if real(mask) in originals:
            continue
        if match and match[1] in files:
            pair = Pair(files[match[1]], mask, name if match[2] else match[1])
        elif not beside and name in files:
            pair = Pair(files[name], mask, name)
        else:
            if (match or not beside) and files.keys().isdisjoint(_owners(name)):  # its guidance may lie beside the mask
                lonely.append(mask)
            continue
        if pair.stem in pairs:
            raise ValueError(f"{pairs[pair.stem].mask} and {mask} are masks for one result; rename one")
        pairs[pair.stem] = pair
    served = {pair.image for pair in pairs.values()}
    without = [file for file in files.values() if file not in served]
    if without:
        make = f"make {without[0].stem}_mask.png{', ..' if len(without) > 1 else ''} there, or remove"
        _refuse_lonely("photograph", photos, f"mask in {masks}", without, make)
    if photos.root:  # of a list, the masks of others may be there, too
        _refuse_lonely("mask", masks, f"photograph in {photos}", lonely)
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
    for name, file in _named(results):
        pair = wanted.get(name)
        if pair in found:
            raise ValueError(f"{found[pair]} and {file} are results of one photograph; remove one")
        if pair:
            found[pair] = file
        elif not (match := _EXTRA.fullmatch(name)) or match[1] not in wanted:
            strays.append(file)
    folder = pairs[0].image.parent
    _refuse_lonely("photograph", folder, f"result in {results}", [pair.image for pair in pairs if pair not in found])
    _refuse_lonely("result", results, f"photograph with a mask in {folder}", strays)
    return [(pair, found[pair]) for pair in pairs]


def pair_guidance(source: Path | None, photos: Photographs, kind: str, *, maps: Path | None = None) -> dict[Path, Path]:
    """Guidance of photographs, by their files; those that have none are left out.

    ``source`` is one file for all, or a folder with ``a_<kind>.png`` for ``a.jpg``. Where no file is named so, it is
    ``a.png``, but for the folder of the photographs and that of ``maps``, in which ``a.png`` is something else.

    Args:
        source: file, folder or None.
        photos: the photographs.
        kind: suffix of the stem, such as ``seg``, ``edge_mask``.
        maps: where the maps are whose masks these are.

    Raises:
        ValueError: two files for one photograph, or, where the photographs are all of a folder, names without a
            photograph; the first five are listed.
    """
    if source is None or source.is_file():
        return dict.fromkeys(photos.files.values(), source) if source else {}
    files = photos.named(source) if source.is_dir() else []
    called = [(name, file) for name, file in files if name.endswith(f"_{kind}")]
    bare = not (called or photos.lie_in(source) or (maps and real(maps) == real(source)))
    wanted = {name if bare else f"{name}_{kind}": image for name, image in photos.files.items()}
    found: dict[Path, Path] = {}
    for name, file in files:
        image = wanted.get(name)
        if image in found:
            raise ValueError(f"{found[image]} and {file} are guidance for one photograph; remove one")
        if image:
            found[image] = file
    if photos.root:
        strays = [(name, file) for name, file in files if photos.files.keys().isdisjoint([name, *_owners(name)])]
        lonely = [file for name, file in (strays if bare else called) if name not in wanted]
        _refuse_lonely("guidance file", source, f"photograph in {photos}", lonely)
    return found


def _named(folder: Path, recursive: bool = False) -> list[tuple[str, Path]]:
    """(name, file) of the pictures of a folder, in order."""
    files = look_into(folder, recursive).pictures
    return [((file.parent / file.stem).relative_to(folder).as_posix(), file) for file in files]


def _owners(name: str) -> list[str]:
    """Names of the photographs whose companion may have this: ``a_seg_mask`` is one of ``a`` or of ``a_seg``."""
    return [match[1] for pattern in _COMPANIONS if (match := pattern.fullmatch(name))]


def _refuse_lonely(
    kind: str, where: object, partner: str, files: Sequence[Path], remedy: str = "rename or remove"
) -> None:
    """Say which files of a kind have no partner, if there are any, and what to do with them."""
    if not files:
        return
    count, names = len(files), some([file.name for file in files])
    have, them = (f"1 {kind} in {where} has", "it") if count == 1 else (f"{count} {kind}s in {where} have", "them")
    raise ValueError(f"{have} no {partner}: {names}; {remedy} {them}")
