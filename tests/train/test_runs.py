"""Both trainings from the command line: what they write, that they resume exactly, that they learn."""

import fcntl
import json
import os
import resource
import signal

import pytest
import torch
from PIL import Image

from mmif import checkpoint
from mmif.commands.train import main
from mmif.config import from_preset
from mmif.model.generator import Generator
from mmif.train.gan import GanTrainer
from mmif.train.run import cut_log


def weights(folder):
    return checkpoint.read(folder)[2]


def log(folder):
    return [json.loads(line) for line in (folder / "trainer" / "log.jsonl").read_text().splitlines()]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def gan(run):
    return run("gan", "gan", steps=2, pl_every=1)


def test_gan_writes_state_weights_log_and_pictures(run):
    folder = run("gan", steps=2, log_every=1, snapshot_every=1, sample_every=2, pl_every=1)
    assert {f.name for f in folder.iterdir()} == {"config.json", "model.safetensors", "samples", "trainer"}
    assert [row["step"] for row in log(folder)] == [1, 2]
    assert {"g", "d", "r1", "path_length"} <= log(folder)[0].keys()
    assert (folder / "samples" / "0000002.png").stat().st_size > 0
    config = from_preset("tiny-32")
    generator = Generator(config.latent, config.generator)
    checkpoint.load_into(generator, checkpoint.part(weights(folder), "generator"), folder)


def test_gan_resumes_exactly(run):
    whole = run("gan", "whole", steps=4, pl_every=2, r1_every=2)
    parts = run("gan", "parts", steps=2, pl_every=2, r1_every=2)
    run("gan", "parts", steps=4, pl_every=2, r1_every=2)
    assert same(weights(whole), weights(parts))


def test_encoder_resumes_exactly(run, gan):
    options = {"generator": gan, "d_width": 8, "decay_at": 0.99}
    whole = run("encoder", "whole", steps=4, **options)
    parts = run("encoder", "parts", steps=2, **options)
    run("encoder", "parts", steps=4, **options)
    assert same(weights(whole), weights(parts))


def test_the_generator_stays_frozen_unless_it_has_a_rate(run, gan):
    def generator(folder):
        return checkpoint.part(weights(folder), "generator")

    frozen = run("encoder", "frozen", steps=2, generator=gan, d_width=8)
    tuned = run("encoder", "tuned", steps=2, generator=gan, d_width=8, generator_lr=1e-3)
    before = generator(gan)
    assert same(generator(frozen), before)
    assert not same(generator(tuned), before)
    mapping = [k for k in before if k.startswith("mapping")]
    assert all(torch.equal(generator(tuned)[k], before[k]) for k in mapping)


def test_twenty_steps_lower_the_loss(run, gan):
    folder = run("encoder", steps=20, log_every=1, generator=gan, d_width=8, lr=5e-3, lambda_adv=0, lambda_adv_edge=0)
    totals = [row["total"] for row in log(folder)]
    assert sum(totals[-5:]) < 0.95 * sum(totals[:5])


def test_a_trained_encoder_is_a_loadable_model(run, gan):
    folder = run("encoder", steps=1, generator=gan, d_width=8)
    model, info = checkpoint.load(folder)
    assert info["stage"] == "encoder"
    assert model(torch.zeros(1, 3, 32, 32), torch.ones(1, 1, 32, 32)).image.shape == (1, 3, 32, 32)


def test_publish_writes_float16_weights_that_load(run, gan, tmp_path):
    from mmif.commands.train import main

    folder = run("encoder", steps=1, log_every=1, generator=gan, d_width=8)
    main(["publish", f"--run={folder}", f"--out={tmp_path / 'shipped'}"])
    model, info = checkpoint.load(tmp_path / "shipped")
    assert info["step"] == 1
    assert "/" not in json.dumps({k: v for k, v in info.items() if k != "folder"})  # no path of anyone's machine
    trained = checkpoint.load(folder)[0].state_dict()
    assert all(torch.equal(v, trained[k].half().float()) for k, v in model.state_dict().items() if v.ndim)


def test_publish_replaces_a_checkpoint_only_if_asked(capsys, run, gan, tmp_path):
    folder = run("encoder", steps=1, generator=gan, d_width=8)
    (tmp_path / "shipped").mkdir()
    weights_file = tmp_path / "shipped" / "model.safetensors"
    weights_file.write_text("mine")
    words = ["publish", f"--run={folder}", f"--out={tmp_path / 'shipped'}"]
    with pytest.raises(SystemExit):
        main(words)
    assert f"{weights_file} must not exist yet; choose another --out, or give --overwrite" in capsys.readouterr().err
    assert weights_file.read_text() == "mine"
    main([*words, "--overwrite"])
    assert checkpoint.load(tmp_path / "shipped")[1]["step"] == 1


def test_the_first_stage_says_that_the_second_will_refuse_the_labels(capsys, run, gan):
    capsys.readouterr()
    run("gan", steps=1, override="encoder.num_classes=3")
    words = "must have at most the 3 labels of the model, got 4; prepare it with --classes 3, or give --override"
    assert words in capsys.readouterr().err
    options = {"steps": 1, "generator": gan, "override": "encoder.num_classes=3"}
    assert words in refused(capsys, run, "encoder", "second", **options)


def test_a_time_limit_stops_cleanly_and_the_run_goes_on(run):
    folder = run("gan", steps=3, max_hours=1e-9)
    assert torch.load(folder / "trainer" / "state.pt", weights_only=True)["step"] == 1
    run("gan", steps=3)
    assert torch.load(folder / "trainer" / "state.pt", weights_only=True)["step"] == 3


def test_yaml_and_overrides(run, tmp_path):
    file = tmp_path / "options.yaml"
    file.write_text("lr: 0.01\noverride: ['generator.channel_max=8']\n")
    folder = run("gan", config=file, steps=1)
    options = json.loads((folder / "trainer" / "options.json").read_text())
    assert options["lr"] == 0.01
    assert checkpoint.read(folder)[0].generator.channel_max == 8
    folder = run("gan", "other", override="generator.channel_max=8", steps=1)
    assert checkpoint.read(folder)[0].generator.channel_max == 8


def refused(capsys, run, *args, **options):
    with pytest.raises(SystemExit) as stop:
        run(*args, **options)
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    return "".join(line for line in message.splitlines() if line.startswith("mmif-train: error: "))


def test_going_on_with_other_options_is_refused(capsys, run, gan):
    before = weights(gan)
    message = refused(capsys, run, "gan", "gan", steps=3, lr=0.1)
    assert f"these options differ from those of the run in {gan}: lr, pl_every; give the same options" in message
    assert "--change-options to go on with these" in message
    assert same(before, weights(gan))


def test_options_may_change_if_asked_and_the_run_keeps_what_changed(capsys, run, gan):
    options = {"lr": 0.1, "override": "generator.fbranch_fill=diffuse"}
    capsys.readouterr()
    for steps in (3, 4):  # the second time nothing changes
        run("gan", "gan", steps=steps, pl_every=1, change_options="true", **options)
    assert "from step 2 on with other options: " in capsys.readouterr().out.splitlines()[0]
    (change,) = json.loads((gan / "trainer" / "options.json").read_text())["changes"]
    assert change["step"] == 2
    assert change["changed"] == {
        "lr": [0.002, 0.1],
        "override": [[], ["generator.fbranch_fill=diffuse"]],
        "model.generator.fbranch_fill": ["zero", "diffuse"],
    }
    state = torch.load(gan / "trainer" / "state.pt", weights_only=True)
    assert state["opt_d"]["param_groups"][0]["lr"] == pytest.approx(0.1 * 16 / 17)  # not the old state's


def test_options_that_do_not_fit_the_state_stay_refused(capsys, run, gan):
    file = gan / "trainer" / "options.json"
    before = file.read_text()
    other = {"override": "generator.channel_max=8", "change_options": "true"}
    message = refused(capsys, run, "gan", "gan", steps=3, pl_every=1, **other)
    assert "state.pt must be the state of a run with these options" in message
    assert file.read_text() == before


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        ("gan", {"data": "/nowhere"}, "/nowhere"),
        ("gan", {"preset": "nonsense"}, "celebahq-256"),
        ("gan", {"preset": "scenes-128"}, "the preset needs 128: prepare the photographs with --size 128, or choose"),
        ("gan", {"preset": "tiny-32", "override": "encoder.width=abc"}, "width must be a whole number in 1..8192"),
        ("gan", {"device": "nonsense"}, "the device must be auto, cpu, cuda or cuda:N"),
        ("gan", {"device": "mps"}, "the device must be auto, cpu, cuda or cuda:N"),
        ("gan", {"steps": -1}, "--steps must be a whole number in 1..1000000000, got -1"),
        ("gan", {"steps": "some"}, "--steps: Expected a"),
        ("gan", {"log_every": 0}, "--log-every must be a whole number in 1..1000000000, got 0"),
        ("gan", {"seed": -1}, "--seed must be a whole number in 0.."),
        ("gan", {"mixing": 2}, "--mixing must be a number in 0..1, got 2.0"),
        ("gan", {"lr": "nan"}, "--lr: Expected a"),
        ("gan", {"workers": 1000}, "--workers must be a whole number in 0..256"),
        ("gan", {"nonsense": 1}, "nonsense"),
        ("encoder", {}, "--generator"),
        ("encoder", {"generator": "/nowhere"}, "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(capsys, run, tmp_path, stage, options, words):
    message = refused(capsys, run, stage, **{"steps": 1, **options})
    assert words in message
    assert message.startswith("mmif-train")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_is_one_line(capsys, run):
    assert "CUDA device" in refused(capsys, run, "gan", device="cuda", steps=1)


def test_a_generator_of_another_size_is_refused(capsys, run, gan):
    message = refused(capsys, run, "encoder", steps=1, generator=gan, override="latent.w_dim=8")
    assert "w_dim 16" in message


def test_a_training_that_diverges_stops_and_keeps_its_last_snapshot(capsys, run):
    message = refused(capsys, run, "gan", steps=40, lr=1e30, snapshot_every=1, log_every=2, pl_every=0)
    assert "became NaN or infinite at step" in message
    assert "the last snapshot is whole" in message


def test_an_encoder_that_diverges_says_so(capsys, run, gan):
    message = refused(capsys, run, "encoder", steps=3, lr=1e30, log_every=1, generator=gan, d_width=8)
    assert "losses total, hrf, " in message
    assert "became NaN or infinite at step 2; the last snapshot is whole" in message


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("opt_g"),
        lambda state: state.update(step="x"),
        lambda state: state.update(step=-5),
        lambda state: state.update(hours=float("nan")),
        lambda state: state.update(hours="1e400"),
        lambda state: state["average"].update({"synthesis.const": torch.zeros(1)}),
        lambda state: state["opt_d"]["state"][0].update(exp_avg=torch.zeros(1)),
    ],
    ids=["missing", "type", "negative", "nan", "infinite", "shape", "moments"],
)
def test_a_state_that_does_not_fit_is_refused_and_kept(capsys, run, gan, spoil):
    file = gan / "trainer" / "state.pt"
    state = torch.load(file, weights_only=True)
    spoil(state)
    torch.save(state, file)
    before = file.read_bytes()
    assert f"{file} must be the state of a run" in refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    assert file.read_bytes() == before


def test_an_encoder_state_that_does_not_fit_is_refused(capsys, run, gan):
    options = {"generator": gan, "d_width": 8}
    file = run("encoder", steps=1, **options) / "trainer" / "state.pt"
    state = torch.load(file, weights_only=True)
    del state["opt_d"]
    torch.save(state, file)
    assert f"{file} must be the state of a run" in refused(capsys, run, "encoder", steps=2, **options)


def test_a_corrupt_state_is_refused_and_kept(capsys, run, gan):
    state = gan / "trainer" / "state.pt"
    state.write_bytes(b"not a state")
    assert "state.pt" in refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    assert state.read_bytes() == b"not a state"


@pytest.mark.parametrize(("file", "content"), [("options.json", None), ("options.json", "{"), ("state.pt", "{}")])
def test_a_run_that_lost_a_part_is_refused(capsys, run, gan, file, content):
    path = gan / "trainer" / file
    path.unlink()
    if content == "{}":
        torch.save({}, path)
    elif content:
        path.write_text(content)
    assert f"{path} must" in refused(capsys, run, "gan", "gan", steps=3, pl_every=1)


def test_changes_that_are_no_list_are_refused(capsys, run, gan):
    file = gan / "trainer" / "options.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"changes": 7}))
    message = refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    assert f"{file} must hold the options of the run, and cannot be read: its changes are no list" in message


class Planted:
    """What a pickle may hold: a call of any function."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_state_with_code_in_it_is_refused_and_not_run(capsys, run, gan, tmp_path):
    file = gan / "trainer" / "state.pt"
    state = torch.load(file, weights_only=True)
    torch.save(state | {"mean_path": Planted(tmp_path / "planted")}, file)
    message = refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    assert f"{file} must be the state of a run" in message
    assert "holds more than tensors and numbers and was not loaded" in message
    assert "weights_only" not in message
    assert not (tmp_path / "planted").exists()


def test_the_state_is_replaced_when_it_is_whole(capsys, run, gan, monkeypatch):
    """A disk that fills up while the state is written costs the new state, and nothing else."""
    before = {file.name: file.read_bytes() for file in (gan / "trainer").iterdir() if file.name != "log.jsonl"}
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((gan / "trainer" / "state.pt").stat().st_size - 1000, limit[1]))
    try:
        message = refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert "trainer/state.pt could not be written: File too large; make room there" in message
    after = {file.name: file.read_bytes() for file in (gan / "trainer").iterdir() if file.name != "log.jsonl"}
    assert after["state.pt"] == before["state.pt"]
    assert after.keys() == before.keys()
    run("gan", "gan", steps=3, pl_every=1)


def test_a_run_that_was_killed_logs_no_step_twice(run, gan):
    file = gan / "trainer" / "log.jsonl"
    with file.open("a") as log_file:
        log_file.write('{"step": 3, "g": 9.0}\n{"step": 4, "g": 9.0}\n{"step": 5, "g')
    run("gan", "gan", steps=4, pl_every=1, log_every=1)
    assert [row["step"] for row in log(gan)] == [3, 4]
    assert all(row["g"] != 9.0 for row in log(gan))


def test_fewer_steps_than_were_made_are_refused(capsys, run, gan):
    options = (gan / "trainer" / "options.json").read_bytes()
    message = refused(capsys, run, "gan", "gan", steps=1, pl_every=1)
    assert message.endswith(
        f"--steps must be at least the 2 that the run in {gan} has made, got 1; nothing was changed"
    )
    assert (gan / "trainer" / "options.json").read_bytes() == options


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_is_saved_and_goes_on_as_the_same_run(capsys, run, monkeypatch, number, code):
    whole = run("gan", "whole", steps=3, pl_every=2, log_every=1)
    step = GanTrainer.step

    def interrupted(self, at, batch):
        if at == 1:
            os.kill(os.getpid(), number)
        return step(self, at, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GanTrainer, "step", interrupted)
        with pytest.raises(SystemExit) as stop:
            run("gan", "parts", steps=3, pl_every=2, log_every=1)
    assert stop.value.code == code
    parts = whole.parent / "parts"
    lines = capsys.readouterr().err.splitlines()
    assert "stopping after this step; once more ends at once" in lines
    assert lines[-1] == f"mmif-train: interrupted; {parts} is whole at step 2, the same command goes on from there"
    assert torch.load(parts / "trainer" / "state.pt", weights_only=True)["step"] == 2
    assert checkpoint.read_header(parts)[1]["step"] == 2
    run("gan", "parts", steps=3, pl_every=2, log_every=1)
    assert same(weights(whole), weights(parts))
    assert [row["step"] for row in log(parts)] == [1, 2, 3]
    assert [{**row, "hours": 0} for row in log(parts)] == [{**row, "hours": 0} for row in log(whole)]


def test_a_second_signal_ends_at_once(run, monkeypatch):
    def twice(self, at, batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one must not come here")

    monkeypatch.setattr(GanTrainer, "step", twice)
    with pytest.raises(SystemExit) as stop:
        run("gan", steps=3)
    assert stop.value.code == 130


def test_an_option_that_an_older_run_does_not_know_has_its_default(run, gan):
    file = gan / "trainer" / "options.json"
    options = json.loads(file.read_text())
    del options["mixing"], options["model"]["encoder"]["gma"]
    file.write_text(json.dumps(options))
    run("gan", "gan", steps=3, pl_every=1)
    assert json.loads(file.read_text())["mixing"] == 0.9


def test_a_log_is_cut_behind_its_last_whole_line_of_the_state(tmp_path):
    with open(tmp_path / "log", "a+b") as file:
        file.write(b'{"step": 1}\nnot ours\n[2]\n{"step": 2}\n{"step": 3}\n{"step": 2}\n')
        file.flush()
        for step, kept in ((9, 6), (2, 4), (1, 3), (0, 0)):
            cut_log(file, step)
            assert len((tmp_path / "log").read_bytes().splitlines()) == kept
        file.write(b'{"step": 4}\n{"st')
        file.flush()
        cut_log(file, 4)
        file.write(b"more\n")
    assert (tmp_path / "log").read_bytes() == b'{"step": 4}\nmore\n'


def test_two_runs_cannot_share_a_folder(capsys, run, gan):
    with (gan / "trainer" / "log.jsonl").open("a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert "another run is using" in refused(capsys, run, "gan", "gan", steps=3, pl_every=1)
    run("gan", "gan", steps=3, pl_every=1)


def test_a_finished_run_says_where_it_stands(capsys, run, gan):
    run("gan", "gan", steps=2, pl_every=1)
    assert "step 2, " in capsys.readouterr().out.splitlines()[-1]


def test_any_batch_makes_a_sample_picture(run, gan):
    folder = run("encoder", steps=1, generator=gan, d_width=8, batch=3)
    assert Image.open(folder / "samples" / "0000001.png").size == (8 * 32, 2 * 32)


def test_labels_that_the_model_lacks_are_refused(capsys, run, gan):
    message = refused(capsys, run, "encoder", steps=1, generator=gan, override="encoder.num_classes=3")
    assert "at most the 3 labels of the model, got 4" in message


def test_a_set_without_training_photographs_is_refused(capsys, run, dataset, tmp_path):
    manifest = json.loads((dataset / "manifest.json").read_text())
    manifest["splits"]["train"] = {"count": 0, "shards": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "its split train is empty" in refused(capsys, run, "gan", data=tmp_path, steps=1)
    assert not (tmp_path / "run").exists()


def test_publish_never_replaces_the_weights_of_a_run(capsys, run, gan):
    folder = run("encoder", steps=1, generator=gan, d_width=8)
    before = checkpoint.sha256(folder / "model.safetensors")
    for out in (folder, folder / ".." / folder.name, gan):
        assert "--out must not be a run folder" in refused(capsys, main, ["publish", f"--run={folder}", f"--out={out}"])
    assert checkpoint.sha256(folder / "model.safetensors") == before


def test_publish_needs_a_run_and_not_a_name(capsys, tmp_path):
    message = refused(capsys, main, ["publish", "--run=scenes-128", f"--out={tmp_path / 'out'}"])
    assert "--run must be a run folder of `mmif-train encoder`" in message


def test_publish_takes_a_run_shorter_than_its_log(run, gan, tmp_path, capsys):
    folder = run("encoder", steps=1, generator=gan, d_width=8)
    main(["publish", f"--run={folder}", f"--out={tmp_path / 'out'}"])
    assert checkpoint.load(tmp_path / "out")[1]["last_losses"] == {}
