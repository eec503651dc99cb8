"""``mmif-doctor`` in healthy and in broken environments."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from mmif import __main__, ops
from mmif.commands import doctor
from mmif.ops import dispatch, selftest


def install(folder, name: str, version: str = "1.0", top_level: str = "") -> None:
    """Write the metadata of a distribution as pip would."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "top_level.txt").write_text(f"{top_level}\n")


def test_a_healthy_environment(capsys):
    assert doctor.main([]) == 0
    out = capsys.readouterr().out
    assert "reference: usable" in out
    assert "torch" in out
    assert "PROBLEM" not in out


def test_json_has_the_same_facts(capsys):
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["problems"] == []
    assert found["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"kind": "op backend", "name": "reference", "why_not": None} in found["backends"]


def test_every_op_says_what_serves_it(capsys):
    assert doctor.main(["--json"]) == 0
    serving = json.loads(capsys.readouterr().out)["ops"]
    assert set(serving) == {
        name for name, value in vars(ops).items() if "backend" in getattr(value, "__annotations__", {})
    }
    assert serving["bias_act"] == ("reference" if dispatch.why_not("cpu") else "cpu")


def test_a_compiled_body_that_is_wrong_or_fails_is_a_problem(monkeypatch, capsys):
    monkeypatch.setattr(dispatch, "_bodies", {("bias_act", "cpu"): dispatch.Body(lambda *_: None)})
    right, one = selftest._examples, torch.ones(1)
    wrong = selftest.Example(lambda name: one * (name == "cpu"), (one,))
    monkeypatch.setattr(selftest, "_examples", lambda device: {"bias_act": wrong})
    assert doctor.main([]) == 1
    assert "PROBLEM       bias_act: the cpu body does not agree with the reference; build" in capsys.readouterr().out

    def broken(name):
        raise RuntimeError("bias_act: the kernel launch failed:\nno kernel image")

    failing = selftest.Example(broken, (one,))
    monkeypatch.setattr(selftest, "_examples", lambda device: {**right(device), "bias_act": failing})
    assert doctor.main([]) == 1
    assert "the cpu body fails (bias_act: the kernel launch failed: no kernel image); build" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "top_level"), [("mmif-python", ""), ("somebody-elses", "mmif")])
def test_another_owner_of_the_import_name_is_a_problem(tmp_path, monkeypatch, capsys, name, top_level):
    install(tmp_path, name, top_level=top_level)
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.main([]) == 1
    assert f"PROBLEM       {name} also installs an import package called mmif" in capsys.readouterr().out


def test_a_torch_that_does_not_import_is_a_problem(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor.main([]) == 1
    assert "PROBLEM       torch cannot be imported" in capsys.readouterr().out


def test_an_environment_without_torch_is_told():
    script = (
        "import sys; sys.modules['torch'] = None; from mmif.commands import doctor; raise SystemExit(doctor.main([]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1
    assert "PROBLEM       torch cannot be imported" in done.stdout
    assert not done.stderr


def test_a_reader_that_has_read_enough_ends_it_silently(monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(doctor, "report", lambda: {"problems": []})
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert doctor.main(["--json"]) == 0
    assert not capsys.readouterr().err


def test_the_verb_runs_the_command(capsys):
    assert __main__.main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]


@pytest.mark.parametrize(("argv", "came"), [([], "a command must be given"), (["dance"], "unknown command 'dance'")])
def test_an_unknown_verb_is_one_line(capsys, argv, came):
    assert __main__.main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mmif: error: {came}; commands are inpaint, train,")
    assert err.count("\n") == 1
