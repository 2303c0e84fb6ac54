"""The demo: equal budgets for all arms, finished work kept, failures said, and the whole road walked."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import demo, jobs
from cli.jobs import DONE, KEPT, Children, FailedError, Job, call, run_all, run_job

SMALL = [
    word
    for name in ("batch=2", "eval_samples=2", "eval_levels=2", "sample_prompts=1", "sample_steps=2")
    for word in ("--set", name)
]


def options(job: Job) -> dict[str, str]:
    """Option -> value of a training job's command."""
    words = job.command[2:]
    return {name: value for name, value in zip(words[::2], words[1::2], strict=True) if name != "--set"}


@pytest.fixture
def planned(tmp_path: Path) -> list[Job]:
    (tmp_path / "model").mkdir()
    (tmp_path / "data" / demo.TASK).mkdir(parents=True)
    probe = Job("probe", ("spectra",), tmp_path / "mini.zarr", "zarr.json", "key")
    return demo.train_jobs(tmp_path, tmp_path / "model", probe)


def test_arms_differ_in_method_and_prior_alone(planned: list[Job]) -> None:
    assert len({job.result for job in planned}) == len(planned) == len(demo.ARMS) * len(demo.SEEDS)
    own = {"--method", "--prior", "--seed", "--out"}
    assert len({tuple(sorted((k, v) for k, v in options(job).items() if k not in own)) for job in planned}) == 1
    for seed in map(str, demo.SEEDS):
        arms = [options(job) for job in planned if options(job)["--seed"] == seed]
        assert sorted((arm["--method"], "--prior" in arm) for arm in arms) == [
            ("fera", False), ("fera", True), ("lora", False),
        ]  # fmt: skip


def test_the_runs_with_a_prior_are_made_again_when_the_probe_changes(tmp_path: Path, planned: list[Job]) -> None:
    probe = Job("probe", ("spectra",), tmp_path / "mini.zarr", "zarr.json", "another key")
    for before, after in zip(planned, demo.train_jobs(tmp_path, tmp_path / "model", probe), strict=True):
        assert (before.key != after.key) == ("--prior" in after.command)


def test_all_runs_are_made_again_when_the_pictures_change(tmp_path: Path, planned: list[Job]) -> None:
    (tmp_path / "data" / demo.TASK / "0.txt").write_text("another caption")
    probe = Job("probe", ("spectra",), tmp_path / "mini.zarr", "zarr.json", "key")
    after = demo.train_jobs(tmp_path, tmp_path / "model", probe)
    assert all(old.key != new.key for old, new in zip(planned, after, strict=True))


def test_a_fingerprint_follows_content_and_not_place(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text("same" if name != "c" else "other")
    found = {name: demo.fingerprint(tmp_path / name) for name in ("a", "b", "c")}
    assert found["a"] == found["b"] != found["c"]


def test_what_is_finished_is_kept_and_what_changed_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, ...]] = []

    def make(command: tuple[str, ...], *_: object) -> str:
        made.append(command)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "run.json").write_text("{}")
        return ""

    monkeypatch.setattr(jobs, "call", make)
    shown: list[str] = []
    for key in ("one", "one", "two"):
        job = Job("run", ("adapt", key), tmp_path / "run", "run.json", key)
        run_job(job, lambda name, now, done, total: shown.append(now), Children())
    assert made == [("adapt", "one"), ("adapt", "two")]
    assert shown == [DONE, KEPT, DONE]


def test_a_failure_carries_the_commands_own_sentence(tmp_path: Path) -> None:
    job = Job("probe", ("spectra", "probe", "--bogus"), tmp_path / "x", "zarr.json", "key")
    with pytest.raises(FailedError, match=r"^spectra: No such option: --bogus.*\.$") as caught:
        run_all([job, job, job], lambda *_: None, 2)
    assert caught.value.code == 2
    assert not job.finished


def test_the_output_of_a_command_is_returned_and_its_progress_told() -> None:
    assert '"mini"' in call(("spectra", "models", "--json"), lambda *_: None, Children())
    told: list[tuple[str, int, int]] = []
    assert jobs._told('{"phase": "train", "done": 1, "total": 9}', lambda *step: told.append(step))
    assert told == [("train", 1, 9)]
    assert not jobs._told("a warning", lambda *_: None)
    assert not jobs._told("3", lambda *_: None)


@pytest.mark.slow
def test_the_demo_walks_the_whole_road(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from spectra.zoo import tasks

    monkeypatch.setattr(tasks, "TASKS", {"style": (tasks.style_picture, 6, 3)})
    small = {
        "MODEL": str(model), "STEPS": 4, "SEEDS": (0,), "PROBE_PROMPTS": 2, "PROBE_SEEDS": "0:1", "PROBE_STEPS": 3,
        "SETTINGS": tuple(SMALL),
    }  # fmt: skip
    for name, value in small.items():
        monkeypatch.setattr(demo, name, value)
    assert demo.main(["--out", str(tmp_path / "demo")]) == 0
    printed = capsys.readouterr().out
    assert str(tmp_path / "demo" / "report.html") in printed
    assert printed.count("\n  - ") == 3
    assert "<html" in (tmp_path / "demo" / "report.html").read_text()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("demo/style-*/run.json")}
    assert len(before) == 3
    assert demo.main(["--out", str(tmp_path / "demo")]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
