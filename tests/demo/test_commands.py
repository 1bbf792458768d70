"""The demo runs commands side by side, and never is silent for long."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from demo import commands
from demo.commands import Command, find_progress, finish

PATIENT = "import time, pathlib\nwhile not pathlib.Path('go').exists(): time.sleep(0.05)\n"
SAYS = """print('{"event": "towers step 3/9", "level": "info"}', flush=True)\n"""


def start(tmp_path: Path, name: str, code: str) -> Command:
    """Start Python code as a command of the demo."""
    return Command(name, [sys.executable, "-c", code], tmp_path, tmp_path / f"{name}.log", os.environ)


def test_commands_run_side_by_side_and_say_what_they_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "QUIET_SECONDS", 0.0)
    slow = start(tmp_path, "train_model", SAYS + PATIENT)
    quick = start(tmp_path, "airflow", "import time\ntime.sleep(2)")
    finish([quick], meanwhile=[slow])
    assert not slow.poll()
    (tmp_path / "go").touch()
    finish([slow])
    out = capsys.readouterr().out
    assert out.startswith(f"$ {sys.executable} -c ")
    assert " s, train_model: towers step 3/9\n" in out
    assert " s, airflow\n" in out
    assert out.index(" s: airflow is done\n") < out.index(" s: train_model is done\n")
    assert slow.seconds > quick.seconds > 0


def test_a_failure_shows_the_end_of_the_output_and_stops_the_others(tmp_path: Path) -> None:
    other = start(tmp_path, "evaluate_model", PATIENT)
    failing = start(tmp_path, "night", "import sys\nprint('the reason')\nsys.exit(3)")
    with pytest.raises(SystemExit, match=r"the reason\n\nnight ended with 3; .* is in .*night\.log"):
        finish([failing], meanwhile=[other])
    assert other.process.poll() is not None


def test_the_last_line_of_a_job_is_found_inside_the_lines_of_airflow(tmp_path: Path) -> None:
    log = tmp_path / "night.log"
    log.write_text("26/11/30 WARN Utils: a hostname\n")
    assert find_progress(log) == ""
    line = '{"event": "score_candidates, 12 s: 3 of 8 tasks", "level": "info"}'
    log.write_text(
        f"{log.read_text()}2026-11-30T14:28:52Z [info] {line} [hooks] loc={{x}}\nanother line\n"
        + 'x {"event": "cut'
    )
    assert find_progress(log) == "score_candidates, 12 s: 3 of 8 tasks"


def test_the_last_line_of_the_command_lime_is_found(tmp_path: Path) -> None:
    log = tmp_path / "again.log"
    log.write_text("night 2017-12-05, run key x, model lime\nstarting Spark, 15 s\n")
    assert find_progress(log) == "starting Spark, 15 s"
    log.write_text(f"{log.read_text()}1/8 ingest_events is done in 3.0 s, 12 rows\nexpected: unknown\n")
    assert find_progress(log) == "1/8 ingest_events is done in 3.0 s, 12 rows"
    log.write_text(f"{log.read_text()}verify_night, 1,030 s: 3 of 8 tasks; about 4 s left\nThe night\n")
    assert find_progress(log) == "verify_night, 1,030 s: 3 of 8 tasks; about 4 s left"
