"""The command line: values that are refused before anything starts, and the endings of a job."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import yaml
from deltalake import DeltaTable

from jobs.arguments import count, night_date, parser, price, run_key, short_run_key, words
from jobs.endings import EXIT_CODES, Ending
from lime_model.bundle import BundleError
from lime_model.errors import LimeError
from pipelines.errors.stack_traces import UnknownFault
from pipelines.store.leases import StaleRun, acquire_lease
from pipelines.store.tables import Warehouse
from pipelines.store.write_errors import WriteConflict
from synthetic import shop
from tests.conftest import ROOT, copy_shop

PATIENCE = 300  # seconds that only a hanging process takes

# This command takes from root the two rights to read everything, so that root acts like any other user.
UNPRIVILEGED = (
    "setpriv",
    *(f"--{set_}=-dac_override,-dac_read_search" for set_ in ("inh-caps", "bounding-set")),
)


def run(
    job: str, *options: str, env: dict[str, str] | None = None, under: Sequence[str] = ()
) -> tuple[int, str, str]:
    """Run a job as a process; return its exit code, its output and its standard error."""
    done = subprocess.run(
        [*under, sys.executable, str(ROOT / "jobs" / f"{job}.py"), *options], capture_output=True, text=True,
        env={**os.environ, "PYSPARK_PYTHON": sys.executable, "PYTHONPATH": str(ROOT), **(env or {})},
        timeout=PATIENCE, check=False, cwd=ROOT,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def error_of(said: str) -> str:
    """Return the last lines, one different line for each fault; check that no stack trace is printed."""
    lines = said.splitlines()
    faults = [line for line in lines if line.startswith("error: ")]
    assert faults, said
    assert faults == lines[-len(faults) :], said
    assert len(set(faults)) == len(faults)
    assert "Traceback" not in said
    assert "\tat " not in said
    return "\n".join(faults)


def parse(job: str, *options: str) -> int:
    """Run a job's file in this process until its command line ends it; return the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [job, *options])
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="__main__")
    return int(left.value.code or 0)


JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text())


@pytest.mark.parametrize("job", JOBS)
def test_every_job_has_help_and_refuses_invalid_dates_and_run_keys(
    job: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parse(job, "--help") == 0
    out = capsys.readouterr().out
    assert "--config" in out
    for option, value, message in (
        ("--ds", "yesterday", "'yesterday' is not a date like 2017-12-04"),
        ("--ds", "0001-01-01", "'0001-01-01' is not a date from 1970-01-02 to 2199-12-31"),
        ("--run-key", "x' OR 'a'='a", "is not 1 to 250 letters, digits and _ . ~ : + -"),
        ("--reason", " ", "it is empty; say why"),
    ):
        if f"{option} " in out and (job, option) != ("ingest_events", "--run-key"):
            assert parse(job, "--config", "x", option, value) == 2
            assert message in capsys.readouterr().err


def test_values_of_options_are_checked() -> None:
    assert (night_date("2024-05-01"), run_key("a:b+c"), price("0.05"), count("7")) == (
        "2024-05-01",
        "a:b+c",
        0.05,
        7,
    )
    for check, values in {
        night_date: ["", "2024-13-01", "1969-12-31", "2200-01-01"],
        run_key: ["", "it's", "a/b"],
        short_run_key: ["k" * 101, "it's"],
        price: ["", "cheap", "-1", "nan", "inf"],
        count: ["0", "-3", "1.5", "x", "٣", "100001"],
        words: ["", "  "],
    }.items():
        for value in values:
            with pytest.raises(Exception, match=r"\w") as caught:
                check(value)
            assert type(caught.value).__name__ == "ArgumentTypeError", (check, value)


def kinds(kind: type[LimeError]) -> Iterator[type[LimeError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from kinds(narrower)


def test_an_exit_code_says_who_can_fix_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    import pipelines.night  # noqa: F401  # this import defines all errors

    assert EXIT_CODES == {"retry": 1, "person": 3, "bug": 70}
    assert {kind.remedy for kind in kinds(LimeError)} <= EXIT_CODES.keys()
    for error, code, said in (
        (BundleError("the bundle is gone; restore it"), 3, "error: the bundle is gone; restore it\n"),
        (WriteConflict("somebody was faster; run it again"), 1, "error: somebody was faster; run it again\n"),
        (BundleError("two\n  faults\n"), 3, "error: two\nerror: faults\n"),
        (StaleRun("overtaken"), 1, "error: overtaken\n"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT; what is committed stays, a rerun does the rest\n"),
    ):
        with Ending() as ending:
            raise error
        assert (ending.code, capsys.readouterr().err) == (code, said)
    with Ending() as ending:
        raise UnknownFault("X NEW_CONDITION: what")
    said = capsys.readouterr().err
    assert (ending.code, said.count("\n"), "please report it" in said) == (70, 1, True)
    with Ending() as ending:
        {}["key\nof two lines"]
    said = capsys.readouterr().err
    assert ending.code == 70
    assert said.count("Traceback") == 1
    assert said.splitlines()[-1].startswith("error: this is a bug: KeyError: ")
    with pytest.raises(SystemExit), Ending():
        sys.exit(143)
    with Ending(verbose=True) as ending:
        raise BundleError("shown whole")
    assert "Traceback" in capsys.readouterr().err
    assert parser("x", "y").parse_args(["--config", "c", "--verbose"]).verbose


def test_settings_are_refused_before_spark_starts(tmp_path: Path) -> None:
    path = shop.write_settings(tmp_path, model="mah")
    for job, options, message in (
        ("score_candidates", (), "night.model: no model 'mah' in models: ['mha', 'xor']; nearest model: mha"),
        ("forget_user", ("--user", "abc", "--reason", "r"), "--user 'abc' is not a whole number, such as 42"),
        ("train_model", ("--model", "mah"), "no model 'mah' in models: ['mha', 'xor']; nearest model: mha"),
        ("roll_back", ("--model", "mah", "--reason", "r"), "no model 'mah' in models: ['mha', 'xor']"),
    ):
        if job != "score_candidates":
            shop.write_settings(tmp_path)
        code, out, said = run(job, "--config", str(path), "--ds", shop.NIGHT, *options)
        assert (code, out, said.count("\n")) == (3, "", 1), (
            said
        )  # the output has one line and nothing from Spark
        assert message in error_of(said)


def test_a_user_is_named_by_one_option_and_a_variable_must_be_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERSON", raising=False)
    common = ("--config", "x", "--ds", shop.NIGHT, "--reason", "r")
    for options, message in (
        ((), "give either --user ID or --user-env VARIABLE"),
        (("--user", "7", "--user-env", "PERSON"), "give either --user ID or --user-env VARIABLE"),
        (
            ("--user-env", "PERSON"),
            "--user-env PERSON: this environment variable is not set; put the user id",
        ),
    ):
        assert parse("forget_user", *common, *options) == 2
        assert message in capsys.readouterr().err


def test_missing_java_is_reported_in_a_sentence(tmp_path: Path) -> None:
    path = shop.write_settings(tmp_path)
    options = ("--config", str(path), "--ds", shop.NIGHT)
    code, _, said = run("tidy_tables", *options, env={"JAVA_HOME": "/no/java"})
    assert (code, said.count("\n")) == (3, 1)
    assert "no Java under JAVA_HOME, which is /no/java; install Java 17 or newer" in error_of(said)
    env = {"PATH": str(tmp_path)}
    env |= {"JAVA_HOME": ""}
    code, _, said = run("tidy_tables", *options, env=env)
    assert (code, "no Java on PATH, and JAVA_HOME is not set" in error_of(said)) == (3, True)


@pytest.mark.jvm
def test_a_storage_without_its_connector_is_reported_in_a_sentence(tmp_path: Path) -> None:
    raw = shop.settings(tmp_path) | {"warehouse": "s3a://lake/lime"}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw))
    code, _, said = run("tidy_tables", "--config", str(tmp_path / "s.yaml"), "--ds", shop.NIGHT)
    assert code == 3
    assert "s3a://lake/lime/" in error_of(said)
    assert "no connector for this storage" in error_of(said)


def test_a_wrong_run_key_does_not_take_the_night_from_its_run(ready: Warehouse, tmp_path: Path) -> None:
    warehouse = copy_shop(ready, tmp_path)
    mine = acquire_lease(warehouse, shop.NIGHT, "right")
    options = ("--config", str(tmp_path / "settings.yaml"), "--ds", shop.NIGHT, "--run-key", "rigth")
    code, _, said = run("score_candidates", *options)
    assert code == 3
    assert "run 'rigth': build_candidate_bank has not finished" in error_of(said)
    leases = DeltaTable(warehouse.path("leases")).to_pyarrow_table().to_pylist()
    assert {row["run_key"] for row in leases if str(row["ds"]) == shop.NIGHT} == {mine.key}


def may_drop_rights() -> bool:
    """Return whether a process of this user can be subject to the rights of a folder."""
    if os.geteuid() != 0:
        return True
    return (
        bool(shutil.which("setpriv")) and not subprocess.run([*UNPRIVILEGED, "true"], check=False).returncode
    )


@pytest.mark.jvm
@pytest.mark.skipif(not may_drop_rights(), reason="root reads everything, and can't give that up here")
def test_an_unreadable_drop_is_not_reported_as_missing(tmp_path: Path) -> None:
    shop.write_drop(tmp_path / "raw", "events", "2024-03-01", shop.events()[:3])
    path, closed = shop.write_settings(tmp_path), tmp_path / "raw" / "events"
    options = ("--config", str(path), "--from", "2024-03-01", "--to", "2024-03-01")
    closed.chmod(0)
    try:
        code, _, said = run("ingest_events", *options, under=UNPRIVILEGED if os.geteuid() == 0 else ())
    finally:
        closed.chmod(0o755)
    assert code == 3
    assert "does not let this user in" in error_of(said)
    assert str(closed) in error_of(said)
    assert "no drop folder" not in said
