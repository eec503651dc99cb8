"""Whether the documents speak of things that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmif.commands import inpaint

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "examples", "tests/csrc/emulation")),
]
# Written when a decision was made, about what was there then; the links in them must lead somewhere all the same.
HISTORY = {ROOT / "CHANGELOG.md", *(ROOT / "docs" / "adr").glob("*.md")}
FOLDERS = ("mmif", "kernels", "csrc", "tests", "benchmarks", "examples", "docs", ".ci", ".github")

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def links(text: str) -> list[str]:
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def is_there(link: str, document: Path) -> bool:
    """The file, and the heading in it if the link names one."""
    name, _, heading = link.partition("#")
    target = document.parent / name if name else document
    return target.exists() and (not heading or heading in headings(target.read_text()))


def headings(text: str) -> set[str]:
    """What a link calls them: small letters, hyphens, nothing else."""
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def paths(text: str) -> list[str]:
    """What stands in the text as a path from the repository's root; ``<op>`` and ``*`` stand for any name."""
    found = re.findall(rf"(?<![\w./<-])(?:{'|'.join(map(re.escape, FOLDERS))})/[\w./<>*{{}},-]*[\w>*}}/]", text)
    return [re.sub(r"<\w+>|\{[^}]*\}", "*", path) for path in found]


@each_document
def test_relative_links_lead_somewhere(document: Path):
    assert [link for link in links(document.read_text()) if not is_there(link, document)] == []


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path not in HISTORY], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_path_that_is_named_exists(document: Path):
    assert [path for path in paths(document.read_text()) if not any(ROOT.glob(path.rstrip("/")))] == []


@each_document
def test_what_is_said_to_be_in_a_file_is_in_it(document: Path):
    """As in: `choose` of `mmif/ops/dispatch.py`."""
    if document in HISTORY:
        return
    for name, path in re.findall(r"`(\w+)` of\s+`((?:mmif|kernels|tests)/[\w/]+\.py)`", document.read_text()):
        assert re.search(rf"^ *(def|class) {name}\b|^{name}\b.*=", (ROOT / path).read_text(), re.MULTILINE), (
            name,
            path,
        )


def test_the_checker_finds_a_path_that_is_gone():
    text = "`mmif/ops/<op>.py`, `csrc/<op>.{h,cpp}`, (kernels/attention/fwd.py), mmif/image.py and `tests/gone/`."
    named = ["mmif/ops/*.py", "csrc/*.*", "kernels/attention/fwd.py", "mmif/image.py", "tests/gone/"]
    assert paths(text) == named
    assert [path for path in named if not any(ROOT.glob(path.rstrip("/")))] == ["mmif/image.py", "tests/gone/"]


def test_the_tables_that_contributors_are_sent_to_are_where_they_are_sent():
    rows = re.findall(r"^\|.*`[A-Z]{4,}`.*$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert rows
    for row in rows:
        sources = "".join((ROOT / path).read_text() for path in re.findall(r"mmif/\w+/\w+\.py|mmif/\w+\.py", row))
        for name in re.findall(r"`([A-Z]{4,})`", row):
            assert re.search(rf"^{name}\b.*=", sources, re.MULTILINE), f"{name} is in none of the files of: {row}"


def test_the_readme_runs_as_it_stands(tmp_path: Path):
    """Its Python, where the examples are; the photograph stays what it was outside the hole."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), made)
    photo, mask = (Image.open(tmp_path / "examples" / name) for name in ("photo.jpg", "mask.png"))
    known = np.asarray(mask.convert("L")) < 128
    for image in (Image.open("filled.png"), made["guided"], *made["several"]):
        assert np.array_equal(np.asarray(image)[known], np.asarray(photo)[known])
    assert len(made["several"]) == 4
    assert len(made["filled"]) == len(made["jobs"])


def test_the_commands_of_the_readme_run_as_they_stand():
    """But for the one that fetches something."""
    for folder, name, as_name in (("photos", "photo.jpg", "a.jpg"), ("masks", "mask.png", "a.png")):
        Path(folder).mkdir()
        for copy in (Path(name), Path(folder, as_name)):
            copy.write_bytes((ROOT / "examples" / name).read_bytes())
    lines = re.findall(r"^mmif-inpaint (.*?) *#", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) == 3
    for line in lines:
        inpaint.main([*shlex.split(line), "--overwrite"])
    assert Path("filled.png").exists()
    assert Path("out", "a.jpg").exists()
