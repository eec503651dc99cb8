"""Which mask and which guidance belong to which photograph: by name, with an error for what belongs to none."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmif.inpaint.pairing import Photographs, find_photographs, pair_guidance, pair_masks, pair_results


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
    with pytest.raises(
        ValueError, match=r"^7 photographs in p have no mask in m: 0\.png, 1\.png, .*, 4\.png and 2 more"
    ):
        pair_masks(Path("p"), Path("m"))
    touch(*(f"m/{i}.png" for i in range(7)))
    with pytest.raises(ValueError, match=r"^1 mask in m has no photograph in p: x\.png; rename or remove it"):
        pair_masks(Path("p"), Path("m"))


def test_a_mask_without_its_photograph_in_the_same_folder():
    touch("p/a.png", "p/a_mask.png", "p/b_mask.png")
    with pytest.raises(ValueError, match=r"^1 mask in p has no photograph in p: b_mask\.png"):
        pair_masks(Path("p"), Path("p"))


def test_names_that_clash():
    touch("p/a.png", "p/a.jpg", "m/a.png", "q/a.png", "n/a.png", "n/a_mask.png")
    with pytest.raises(ValueError, match=r"p/a\.jpg and p/a\.png would make one result"):
        pair_masks(Path("p"), Path("m"))
    with pytest.raises(ValueError, match=r"n/a\.png and n/a_mask\.png are masks for one result"):
        pair_masks(Path("q"), Path("n"))


def test_folders_that_hold_nothing():
    touch("p/a.png")
    Path("empty").mkdir()
    with pytest.raises(ValueError, match="no photographs in empty"):
        pair_masks(Path("empty"), Path("p"))
    with pytest.raises(ValueError, match="check the path"):
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
    a, b = Path("p/a.png"), Path("p/b.webp")
    images = find_photographs(Path("p"))
    assert pair_guidance(Path("p"), images, "seg") == {a: Path("p/a_seg.png")}
    assert pair_guidance(Path("p"), images, "seg_mask") == {a: Path("p/a_seg_mask.png")}
    assert pair_guidance(Path("s"), images, "seg") == {a: Path("s/a.png")}
    assert pair_guidance(Path("s"), images, "seg_mask", maps=Path("s")) == {}
    assert pair_guidance(Path("s"), images, "edge") == {a: Path("s/a_edge.PNG")}
    assert pair_guidance(Path("p"), images, "edge") == {}
    assert pair_guidance(a, images, "edge") == {a: a, b: a}
    assert pair_guidance(None, images, "edge") == {}


def test_guidance_without_a_photograph_lists_the_first_five():
    a = Path("p/a.png")
    images = Photographs({"a": a}, root=Path("p"))
    touch("p/a.png", "p/B_edge.png", "g/a.png", "g/a_seg.png", *(f"g/{i}.png" for i in range(6)))
    with pytest.raises(ValueError, match=r"^1 guidance file in p has no photograph in p: B_edge\.png"):
        pair_guidance(Path("p"), images, "edge")
    with pytest.raises(ValueError, match=r"^6 guidance files in g have no .*: 0\.png, 1\.png, .*, 4\.png and 1 more"):
        pair_guidance(Path("g"), images, "edge")
    assert pair_guidance(Path("g"), find_photographs([a]), "edge") == {a: Path("g/a.png")}


def test_results_with_what_was_predicted_can_be_a_folder_of_guidance():
    a = Path("p/a.png")
    images = Photographs({"a": a, "b": Path("p/b.png")}, root=Path("p"))
    touch("out/a.png", "out/a_seg.png", "out/a_strip.png", "out/b.png")
    assert pair_guidance(Path("out"), images, "seg") == {a: Path("out/a_seg.png")}  # and never the picture out/b.png


def test_two_files_of_guidance_for_one_photograph():
    touch("p/a.png", "g/a_edge.png", "g/a_edge.tif")
    with pytest.raises(ValueError, match=r"g/a_edge\.png and g/a_edge\.tif are guidance for one photograph"):
        pair_guidance(Path("g"), find_photographs(Path("p")), "edge")


# Lists of files, and folders of folders


def test_a_list_takes_its_own_masks_out_of_a_folder_with_more():
    touch("p/a.png", "q/b.jpg", "m/a.png", "m/b_mask000.png", "m/b_mask001.png", "m/c.png", "n/a.png")
    photos = find_photographs([Path("q/b.jpg"), Path("p/a.png")])
    assert [(p.image.name, p.mask.name, p.stem) for p in pair_masks(photos, Path("m"))] == [
        ("a.png", "a.png", "a"),
        ("b.jpg", "b_mask000.png", "b_mask000"),
        ("b.jpg", "b_mask001.png", "b_mask001"),
    ]
    with pytest.raises(ValueError, match=r"^1 photograph in the list has no mask in n: b\.jpg"):
        pair_masks(photos, Path("n"))


def test_all_files_of_a_folder_as_a_list_are_paired_as_the_folder_is():
    touch("p/a.png", "p/a_mask.png", "p/a_seg.png", "p/b.jpg", "p/b_mask.png")
    listed = find_photographs(sorted(Path("p").iterdir()), Path("p"))
    assert pair_masks(listed, Path("p")) == pair_masks(Path("p"), Path("p"))


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["p/a.png", "q/a.jpg"], r"p/a\.png and q/a\.jpg would make one result"),
        (["p/none.png"], r"^no photograph at p/none\.png; check the path$"),
        (["p/a.png", "p"], "^p is a folder; name it alone$"),
        (["p/a_mask.png", "p/b_seg.png"], "no photographs in the list"),
    ],
)
def test_a_list_that_cannot_be_used(files, words):
    touch("p/a.png", "q/a.jpg", "p/a_mask.png", "p/b_seg.png")
    with pytest.raises(ValueError, match=words):
        find_photographs([Path(file) for file in files], Path("p"))


def test_folders_of_folders_are_paired_by_their_paths():
    touch("p/a.png", "p/trip/a.png", "p/trip/b.jpg", "p/.trash/c.png", "m/a.png", "m/trip/a_mask.png", "m/trip/b.png")
    touch("e/trip/b_edge.png")
    photos = find_photographs(Path("p"), Path("m"), recursive=True)
    pairs = pair_masks(photos, Path("m"))
    assert [(str(p.mask), p.stem) for p in pairs] == [
        ("m/a.png", "a"),
        ("m/trip/a_mask.png", "trip/a"),
        ("m/trip/b.png", "trip/b"),
    ]
    assert pair_guidance(Path("e"), photos, "edge") == {Path("p/trip/b.jpg"): Path("e/trip/b_edge.png")}
    assert [p.stem for p in pair_masks(Path("p"), Path("m/a.png"))] == ["a"]


def test_masks_and_results_below_the_photographs_are_no_photographs():
    touch("p/a.png", "p/masks/a.png", "p/out/a.png", "p/trip/b.png", "p/masks/trip/b.png")
    photos = find_photographs(Path("p"), Path("p/masks"), recursive=True, results=Path("p/out"))
    assert [str(p.image) for p in pair_masks(photos, Path("p/masks"))] == ["p/a.png", "p/trip/b.png"]


def test_masks_or_results_round_the_photographs_take_none_of_them_away():
    touch("top/p/a.png", "top/a_mask.png")
    photos = find_photographs(Path("top/p"), Path("top"), recursive=True, results=Path("."))
    assert [p.mask.name for p in pair_masks(photos, Path("top"))] == ["a_mask.png"]


# Results


def test_results_are_found_by_the_names_that_mmif_inpaint_gives_them():
    touch("p/a.png", "p/b.png", "p/a_mask.png", "p/b_mask000.png", "p/b_mask001.png")
    touch("out/a.png", "out/b_mask000.png", "out/b_mask001.png", "out/a_seg.png", "out/a_strip.png")
    pairs = pair_masks(Path("p"), Path("p"))
    assert [file.name for _, file in pair_results(pairs, Path("out"))] == ["a.png", "b_mask000.png", "b_mask001.png"]
    touch("out/c.png")
    with pytest.raises(ValueError, match=r"^1 result in out has no photograph with a mask in p: c\.png"):
        pair_results(pairs, Path("out"))
    Path("out/c.png").rename("out/a.jpg")
    with pytest.raises(ValueError, match=r"out/a\.jpg and out/a\.png are results of one photograph"):
        pair_results(pairs, Path("out"))


def test_a_photograph_without_a_mask_is_told_which_one_to_make():
    touch("p/quay.jpg", "p/sea.jpg", "m/notes.txt")
    with pytest.raises(ValueError, match=r": quay\.jpg, sea\.jpg; make quay_mask\.png, \.\. there, or remove them$"):
        pair_masks(Path("p"), Path("m"))
    Path("p/sea.jpg").unlink()
    with pytest.raises(ValueError, match=r": quay\.jpg; make quay_mask\.png there, or remove it$"):
        pair_masks(Path("p"), Path("m"))
