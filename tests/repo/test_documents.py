"""Whether the documents, and the comments and docstrings of the code, speak of things that exist."""

from __future__ import annotations

import ast
import io
import re
import shlex
import tokenize
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

CODE = [
    *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in (".py", ".cpp", ".cu", ".h")),
    *(ROOT / name for name in ("Makefile", "pyproject.toml", "setup.py")),
]

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
    found = [re.sub(r"<\w+>|\{[^}]*\}", "*", path) for path in found]
    return [re.sub(r"^(docs/adr/\d{4})$", r"\1-*", path) for path in found]


def gone(text: str) -> list[str]:
    return [path for path in paths(text) if not any(ROOT.glob(path.rstrip("/")))]


def remarks(path: Path) -> str:
    """The comments of a file, and a Python file's docstrings."""
    text = path.read_text()
    if path.suffix != ".py":
        return "\n".join(re.findall(r"//.*|#.*", text))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, owners)]
    return "\n".join([*comments, *(ast.get_docstring(node) or "" for node in nodes)])


@each_document
def test_relative_links_lead_somewhere(document: Path):
    assert [link for link in links(document.read_text()) if not is_there(link, document)] == []


@pytest.mark.parametrize(
    "document", [path for path in DOCUMENTS if path not in HISTORY], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_every_path_that_is_named_exists(document: Path):
    assert gone(document.read_text()) == []


def test_every_path_that_the_code_remarks_on_exists():
    found = {path.relative_to(ROOT).as_posix(): gone(remarks(path)) for path in CODE}
    assert {name: paths for name, paths in found.items() if paths} == {}


@each_document
def test_what_is_said_to_be_in_a_file_is_in_it(document: Path):
    """As in: `choose` of `mmif/ops/dispatch.py`."""
    if document in HISTORY:
        return
    for name, path in re.findall(r"`(\w+)` of\s+`((?:mmif|kernels|csrc|tests)/[\w/]+\.\w+)`", document.read_text()):
        assert re.search(
            rf"^ *(def|class|struct) {name}\b|^(\w+ )?{name}\b.*[=(]", (ROOT / path).read_text(), re.MULTILINE
        ), (
            name,
            path,
        )


def test_the_checker_finds_a_path_that_is_gone():
    text = "`mmif/ops/<op>.py`, `csrc/<op>.{h,cpp}`, (kernels/attention/fwd.py), mmif/image.py and `tests/gone/`."
    named = ["mmif/ops/*.py", "csrc/*.*", "kernels/attention/fwd.py", "mmif/image.py", "tests/gone/"]
    assert paths(text) == named
    assert gone(text) == ["mmif/image.py", "tests/gone/"]
    assert gone("docs/adr/0012, docs/adr/9999") == ["docs/adr/9999-*"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", 'def f():\n    """Of mmif/gone.py."""'),
        ("a.py", "x = 1  # as in mmif/gone.py"),
        ("a.cu", "int x;  // for mmif/gone.py"),
        ("Makefile", "# the remarks of mmif/gone.py"),
    ],
)
def test_the_checker_finds_a_path_that_is_gone_in_a_remark(tmp_path: Path, name: str, text: str):
    (tmp_path / name).write_text(text)
    assert gone(remarks(tmp_path / name)) == ["mmif/gone.py"]


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
