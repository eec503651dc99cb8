"""Files are written whole or not at all, whoever else writes, plants or dies beside them."""

from __future__ import annotations

import fcntl
import io
import json
import multiprocessing
import os
import resource
import signal
import stat
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from mmif import files
from mmif.files import check_writable, claim, parse_json, read_json, sha256, write, write_json, writing


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@contextmanager
def largest_file(size: int):
    """A disk that is full after ``size`` bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_text_bytes_and_json_are_written_as_they_are(tmp_path: Path):
    write(tmp_path / "a", "grün\n")
    write(tmp_path / "b", b"\0\xff")
    write_json(tmp_path / "c.json", {"b": 1, "a": [None, "ü"]})
    assert (tmp_path / "a").read_bytes() == b"gr\xc3\xbcn\n"
    assert (tmp_path / "b").read_bytes() == b"\0\xff"
    assert (tmp_path / "c.json").read_bytes() == b'{\n  "b": 1,\n  "a": [\n    null,\n    "\\u00fc"\n  ]\n}\n'
    assert names(tmp_path) == ["a", "b", "c.json"]


def test_json_that_others_could_not_read_is_not_written(tmp_path: Path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_the_file_appears_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "a"
    with writing(path) as file:
        file.write(b"half")
        file.flush()
        assert not path.exists()
        (unfinished,) = names(tmp_path)
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert unfinished.startswith(".a.")
    assert unfinished.endswith(".part")
    assert len(unfinished) == len(".a.0123456789abcdef.part")
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_what_was_there(tmp_path: Path, error: type[BaseException]):
    write(tmp_path / "a", "before")

    def interrupted() -> None:
        with writing(tmp_path / "a") as file:
            file.write(b"after")
            raise error

    with pytest.raises(error):
        interrupted()
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_the_content_is_on_the_disk_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(stat.S_IFMT(os.fstat(fd).st_mode)), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append((os.path.getsize(a), b)), replace(a, b)))
    write(tmp_path / "a", "abc")
    assert calls == [stat.S_IFREG, (3, tmp_path / "a"), stat.S_IFDIR]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_as_the_umask_says(tmp_path: Path, umask: int, mode: int):
    before = os.umask(umask)
    try:
        write(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_a_link_is_replaced_and_never_followed(tmp_path: Path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "a").symlink_to(tmp_path / "precious")
    write(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "a").read_text() == "new"


def test_a_link_planted_under_the_unfinished_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "precious").write_text("precious")
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path / ".a.0000000000000000.part").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="a could not be written: File exists; make room there, or choose another place"):
        write(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "a").exists()


def test_only_a_file_may_be_replaced(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "null", Path("/dev/null")):
        for refuse in (check_writable, lambda path: write(path, "")):
            with pytest.raises(ValueError, match=f"^{path} must be a file .*, and is a folder, a device or a pipe; "):
                refuse(path)
    assert Path("/dev/null").is_char_device()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing" / "a", tmp_path / "file" / "a"):
        with pytest.raises(OSError, match=rf"^{path} could not be written: [^;]+; make room there, or choose another"):
            write(path, "")
        with pytest.raises(ValueError, match=f"{path} must be a file in a folder that exists"):
            check_writable(path)
    check_writable(None)
    check_writable(tmp_path / "new")
    check_writable(tmp_path / "file")


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path):
    write(tmp_path / "a", "before")
    with largest_file(1000), pytest.raises(OSError, match=f"^{tmp_path / 'a'} could not be written: File too large; "):
        write(tmp_path / "a", bytes(2000))
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a"]


def test_a_full_disk_is_told_as_such_whatever_the_writer_makes_of_it(tmp_path: Path):
    with largest_file(5000), pytest.raises(OSError, match=r"state\.pt could not be written: File too large; "):
        with writing(tmp_path / "state.pt") as file:
            torch.save({"a": torch.zeros(10_000)}, file)  # a RuntimeError of the archive's writer
    assert names(tmp_path) == []


def test_an_error_of_a_file_that_is_read_in_the_block_is_not_renamed(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="missing"), writing(tmp_path / "a"):
        open(tmp_path / "missing")
    assert names(tmp_path) == []


def test_an_error_without_a_name_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(_: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=f"^{tmp_path / 'a'} could not be written: Input/output error; make room there"):
        write(tmp_path / "a", "new")
    assert names(tmp_path) == []


def test_no_descriptor_stays_open(tmp_path: Path):
    before = names(Path("/proc/self/fd"))
    for _ in range(3):
        write(tmp_path / "a", "")
    assert names(Path("/proc/self/fd")) == before


def test_who_holds_a_folder_removes_orphans_of_any_age(tmp_path: Path):
    orphan, held = (tmp_path / f".a.{digit * 16}.part" for digit in "12")
    orphan.write_text("half")
    with held.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.remove_orphans(tmp_path, age=30)
        assert names(tmp_path) == [orphan.name, held.name]
        files.remove_orphans(tmp_path)
        assert names(tmp_path) == [held.name]


def test_a_json_file_may_have_64_mb(tmp_path: Path):
    (tmp_path / "a.json").touch()
    os.truncate(tmp_path / "a.json", 64 * 2**20 + 1)  # a hole: it takes no room
    with pytest.raises(ValueError, match="it is larger than 64 MB"):
        read_json(tmp_path / "a.json")
    os.truncate(tmp_path / "a.json", 64 * 2**20)
    with pytest.raises(ValueError, match="Expecting value"):
        read_json(tmp_path / "a.json")


def test_the_longest_name_is_written(tmp_path: Path):
    for name in ("n" * 255, "ü" * 127):
        write(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
    with pytest.raises(OSError, match="File name too long"):
        write(tmp_path / ("n" * 256), "")


def _write_for_ever(path: Path, letter: bytes) -> None:
    while True:
        write(path, letter * 50_000)


def _write_and_wait(path: Path, begun: multiprocessing.synchronize.Event) -> None:
    with writing(path) as file:
        file.write(b"half")
        file.flush()
        begun.set()
        time.sleep(60)


def test_writers_at_the_same_time_never_mix(tmp_path: Path):
    fork = multiprocessing.get_context("fork")
    path = tmp_path / "a"
    write(path, b"x" * 50_000)
    writers = [fork.Process(target=_write_for_ever, args=(path, letter)) for letter in (b"x", b"y", b"z")]
    for writer in writers:
        writer.start()
    try:
        for _ in range(200):
            content = path.read_bytes()
            assert content == content[:1] * 50_000
    finally:
        for writer in writers:
            writer.kill()
            writer.join()
    assert set(names(tmp_path)) >= {"a"}
    assert all(name == "a" or name.endswith(".part") for name in names(tmp_path))


def test_what_a_killed_writer_left_goes_after_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_cleaned", {})
    write(tmp_path / "a", "before")
    fork = multiprocessing.get_context("fork")
    begun = fork.Event()
    writer = fork.Process(target=_write_and_wait, args=(tmp_path / "a", begun))
    writer.start()
    assert begun.wait(30)
    (orphan,) = tmp_path.glob(".a.*.part")

    def write_later(name: str, minutes: float) -> None:
        """Write as a process would that starts when the orphan is so old."""
        os.utime(orphan, (time.time() - 60 * minutes,) * 2)
        files._cleaned.clear()
        write(tmp_path / name, "other")

    write_later("b", minutes=100)
    assert orphan.exists()  # it is being written, however slowly
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    write_later("b", minutes=0.9)
    assert orphan.exists()  # one as young as this may be about to be locked
    write_later("b", minutes=1.1)
    assert not orphan.exists()
    assert (tmp_path / "a").read_text() == "before"
    assert names(tmp_path) == ["a", "b"]


def test_what_looks_like_an_orphan_but_is_none_stays_or_does_not_block(tmp_path: Path):
    old = (time.time() - 1000,) * 2
    (tmp_path / "precious").write_text("precious")
    os.utime(tmp_path / "precious", old)
    link, pipe = (tmp_path / f".a.{digit * 16}.part" for digit in "12")
    link.symlink_to(tmp_path / "precious")
    os.mkfifo(pipe)  # opening it would wait for a writer
    os.utime(pipe, old)
    others = [
        tmp_path / name for name in (".a.part", ".a.123.part", "a.1111111111111111.part", ".a.zzzzzzzzzzzzzzzz.part")
    ]
    for other in others:
        other.write_text("mine")
        os.utime(other, old)
    write(tmp_path / "a", "new")
    assert (tmp_path / "precious").read_text() == "precious"
    assert all(other.read_text() == "mine" for other in others)
    assert link.is_symlink()
    assert not pipe.exists()


def test_a_folder_is_looked_through_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    now, looked = [1000.0], []
    monkeypatch.setattr(files, "_cleaned", {})
    monkeypatch.setattr(files.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: looked.append(folder) or [])
    for moment in (1000, 1059, 1060):
        now[0] = moment
        write(tmp_path / "a", "")
    assert looked == [tmp_path, tmp_path]


def test_json_is_read_strictly_and_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.json"
    path.write_bytes('{"a": [1, "ü"]}'.encode())
    assert read_json(path) == {"a": [1, "ü"]}
    for content, why in (
        (b"{", "Expecting property name"),
        (b'{"a": NaN}', "NaN is not valid JSON"),
        (b"[-Infinity]", "-Infinity is not valid JSON"),
        (b"[" * 100_000, "it is nested too deeply"),
        (b'{"a":' * 100_000, "it is nested too deeply"),
        (b'"\xff"', "can't decode byte 0xff"),
        (b"1" * 5000, "Exceeds the limit"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path} must be a JSON file, and cannot be read: .*{why}"):
            read_json(path)
    with pytest.raises(ValueError, match="missing must be a JSON file, and cannot be read: No such file"):
        read_json(tmp_path / "missing")
    monkeypatch.setattr(files, "_MOST_JSON", 2**20)
    path.write_bytes(b" " * (2**20 - 1) + b"1")
    assert read_json(path) == 1
    path.write_bytes(b" " * 2**20 + b"1")
    with pytest.raises(ValueError, match="it is larger than 1 MB"):
        read_json(path)
    assert files.parse_json is parse_json
    assert parse_json("[1e999]") == [float("inf")]  # a number to JSON; bounds are the reader's own matter


def test_sha256_is_that_of_the_content(tmp_path: Path):
    write(tmp_path / "a", "abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_claim_holds_until_it_is_closed(tmp_path: Path):
    message = f"^another run is using {tmp_path}: wait for it, or choose another --out$"
    with open(tmp_path / "log", "a") as ours:
        claim(tmp_path, ours)
        claim(tmp_path, ours)  # again, by the same
        with open(tmp_path / "log", "a") as theirs, pytest.raises(ValueError, match=message):
            claim(tmp_path, theirs)
    with open(tmp_path / "log", "a") as theirs:
        claim(tmp_path, theirs)
        assert fcntl.fcntl(theirs, fcntl.F_GETFD) & fcntl.FD_CLOEXEC  # a program that is started does not inherit it


def test_an_unfinished_file_is_not_inherited_by_programs(tmp_path: Path):
    with writing(tmp_path / "a") as file:
        assert isinstance(file, io.BufferedWriter)
        assert not os.get_inheritable(file.fileno())
        with open(next(tmp_path.glob("*.part")), "rb") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)  # held, so that nobody takes it for an orphan


def test_json_of_any_length_of_list(tmp_path: Path):
    write_json(tmp_path / "a.json", list(range(1000)))
    assert json.loads((tmp_path / "a.json").read_text()) == read_json(tmp_path / "a.json") == list(range(1000))
