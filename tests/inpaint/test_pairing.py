"""Which mask and which guidance belong to which photograph: by name, with an error for what belongs to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmif.inpaint.pairing import pair_guidance, pair_masks


def touch(*paths: str) -> None:
    for path in paths:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()


def test_pairing_by_name():
    touch("p/a.png", "p/b.jpg", "p/notes.txt", "p/.hidden.png", "m/a.png", "m/b_mask.png")
    pairs = pair_masks(Path("p"), Path("m"))
    assert [(p.image.name, p.mask.name, p.stem) for p in pairs] == [
        ("a.png", "a.png", "a"),
        ("b.jpg", "b_mask.png", "b"),
    ]


def test_one_mask_inside_the_folder_for_all():
    touch("p/a.png", "p/b.png", "p/mask.png")
    assert [p.stem for p in pair_masks(Path("p"), Path("p/mask.png"))] == ["a", "b"]


def test_unmatched_names_list_the_first_five_in_both_directions():
    touch(*(f"p/{i}.png" for i in range(7)), "m/x.png")
    with pytest.raises(ValueError, match=r"7 have none: 0\.png, 1\.png, 2\.png, 3\.png, 4\.png and 2 more"):
        pair_masks(Path("p"), Path("m"))
    touch(*(f"m/{i}.png" for i in range(7)))
    with pytest.raises(ValueError, match=r"every mask in m must have a photograph in p; 1 have none: x\.png"):
        pair_masks(Path("p"), Path("m"))


def test_a_mask_without_its_photograph_in_the_same_folder():
    touch("p/a.png", "p/a_mask.png", "p/b_mask.png")
    with pytest.raises(ValueError, match=r"must have a photograph in p; 1 have none: b_mask\.png"):
        pair_masks(Path("p"), Path("p"))


def test_names_that_clash():
    touch("p/a.png", "p/a.jpg", "m/a.png", "q/a.png", "n/a.png", "n/a_mask.png")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png share one"):
        pair_masks(Path("p"), Path("m"))
    with pytest.raises(ValueError, match=r"a\.png and a_mask\.png clash"):
        pair_masks(Path("q"), Path("n"))


def test_folders_that_hold_nothing():
    touch("p/a.png")
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="must hold photographs"):
        pair_masks(Path("empty"), Path("p"))
    with pytest.raises(ValueError, match="none is there"):
        pair_masks(Path("p"), Path("nowhere"))


def test_a_folder_named_like_a_picture_is_none():
    touch("p/a.png", "p/sub.png/b.png", "m.png")
    assert [p.stem for p in pair_masks(Path("p"), Path("m.png"))] == ["a"]


def test_guidance_masks_beside_the_masks_are_no_masks():
    touch("p/a.png", "p/a_mask.png", "p/a_edge.png", "p/a_edge_mask.png", "p/a_seg_mask.png")
    assert [p.mask.name for p in pair_masks(Path("p"), Path("p"))] == ["a_mask.png"]
    touch("q/a.png", "q/b_seg.png", "m/a.png", "m/a_edge_mask.png", "m/b_seg_mask.png")
    assert [p.mask.name for p in pair_masks(Path("q"), Path("m"))] == ["a.png", "b_seg_mask.png"]


def test_guidance_by_name():
    touch("p/a.png", "p/a_seg.png", "p/a_seg_mask.png", "s/a.png", "s/a_edge.PNG", "s/b_mask000.tif", "p/b.webp")
    a, b = images = [Path("p/a.png"), Path("p/b.webp")]
    assert pair_guidance(Path("p"), images, "seg") == {a: Path("p/a_seg.png")}
    assert pair_guidance(Path("p"), images, "seg_mask") == {a: Path("p/a_seg_mask.png")}
    assert pair_guidance(Path("s"), images, "seg") == {a: Path("s/a.png")}
    assert pair_guidance(Path("s"), images, "seg_mask", maps=Path("s")) == {}
    assert pair_guidance(Path("s"), images, "edge") == {a: Path("s/a_edge.PNG")}
    assert pair_guidance(Path("p"), images, "edge") == {}
    assert pair_guidance(a, images, "edge") == {a: a, b: a}
    assert pair_guidance(None, images, "edge") == {}


def test_guidance_without_a_photograph_lists_the_first_five():
    images = [Path("p/a.png")]
    touch("p/a.png", "p/B_edge.png", "g/a.png", "g/a_seg.png", *(f"g/{i}.png" for i in range(6)))
    with pytest.raises(ValueError, match=r"in p must have a photograph in p; 1 have none: B_edge\.png"):
        pair_guidance(Path("p"), images, "edge")
    with pytest.raises(ValueError, match=r"6 have none: 0\.png, 1\.png, 2\.png, 3\.png, 4\.png and 1 more"):
        pair_guidance(Path("g"), images, "edge")
    assert pair_guidance(Path("g"), images, "edge", whole=False) == {images[0]: Path("g/a.png")}


def test_results_with_what_was_predicted_can_be_a_folder_of_guidance():
    a, _ = images = [Path("p/a.png"), Path("p/b.png")]
    touch("out/a.png", "out/a_seg.png", "out/a_strip.png", "out/b.png")
    assert pair_guidance(Path("out"), images, "seg") == {a: Path("out/a_seg.png")}  # and never the picture out/b.png


def test_two_files_of_guidance_for_one_photograph():
    touch("p/a.png", "g/a_edge.png", "g/a_edge.tif")
    with pytest.raises(ValueError, match=r"p/a\.png must have one file .*; g/a_edge\.png and g/a_edge\.tif clash"):
        pair_guidance(Path("g"), [Path("p/a.png")], "edge")
