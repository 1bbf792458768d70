"""What `lime` prints: plans, tables and verdicts for people, and one JSON object for programs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from jobs import definitions
from jobs.lime.commands import COMMANDS, NIGHT
from jobs.lime.face import run
from jobs.lime.night import NightOutput, describe_step
from jobs.lime.output import JsonOutput, PeopleOutput
from pipelines.settings.settings import load_settings
from pipelines.steps import NIGHT_STEPS
from pipelines.store.manifests import PinManifest
from synthetic import shop
from tests.jobs.running_lime import ESCAPE, on_a_terminal, start


def test_an_error_before_spark_is_a_line_and_with_json_an_object(tmp_path: Path) -> None:
    path = shop.write_settings(tmp_path)
    options = ("train", "--config", str(path), "--ds", shop.NIGHT, "--model", "mah", "--json")
    done = start(*options)
    assert done.returncode == 3
    report = json.loads(done.stdout)
    assert (report["command"], report["exit_code"], report["results"]) == ("train", 3, {})
    assert report["errors"] == [done.stderr.strip()]
    assert "no model 'mah'" in done.stderr
    done = start("night", "--config", str(tmp_path / "none.yaml"), "--ds", shop.NIGHT)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "Nothing was published" in done.stdout
    assert (
        f"Next: lime night --config {tmp_path / 'none.yaml'} --ds {shop.NIGHT} --run-key manual"
        in done.stdout
    )


def test_a_night_tells_its_plan_and_warns_of_slow_scoring(tmp_path: Path) -> None:
    path = shop.write_settings(tmp_path)
    env = {"JAVA_HOME": "/no/java", "LIME_NATIVE": str(tmp_path)}
    done = start("night", "--config", str(path), "--ds", shop.NIGHT, "--run-key", "first", **env)
    assert done.returncode == 3
    plan = " ".join(done.stdout.split())  # a long line is broken at the end of the terminal
    assert plan.startswith(f"night {shop.NIGHT}, run key first, model mha, 10 items for each user steps: ")
    assert f" steps: {', '.join(NIGHT_STEPS)} " in plan
    warning, error = done.stderr.splitlines()
    assert warning.startswith("warning: torch scores here")
    assert error.startswith("error: no Java under JAVA_HOME")
    assert ESCAPE not in done.stdout + done.stderr
    done = start("night", "--config", str(path), "--ds", shop.NIGHT, "--json", **env)
    report = json.loads(done.stdout)
    assert (report["model"], report["steps"], report["published"]) == ("mha", [], False)


def test_colours_are_for_terminals_only_and_not_if_no_color_is_set() -> None:
    piped = start("night", "--help")
    assert ESCAPE not in piped.stdout
    assert ESCAPE in on_a_terminal("night", "--help")
    assert ESCAPE not in on_a_terminal("night", "--help", NO_COLOR="1")


PUBLISHED = {
    "run_id": "2024-05-01.1", "seconds": 2.0, "scoring": {"users": 40, "pairs": 4800},
    "certificate": {"users": 24}, "audits": {"checks": [{"holds": True}, {"holds": False}]},
}  # fmt: skip


def night_of(tmp_path: Path, *, as_json: bool) -> NightOutput:
    args = argparse.Namespace(ds="2024-05-01", run_key="first", config="c.yaml", json=as_json)
    output = NightOutput(args)
    output.start(load_settings(shop.write_settings(tmp_path, backend="tiled")))
    output.expect({"ingest_events": 4.0, "score_candidates": 60.0, "verify_night": 7.0}, "a run took as long")
    loaded = {"items": {"rows": {"loaded": 120}}, "events": {"rows": {"loaded": 1000}}, "versions": {"x": 1}}
    output.result("ingest_events", loaded | {"seconds": 4.0})
    output.result("score_candidates", {"seconds": 61.5, "policies": {"all": {"users": 40, "pairs": 4800}}})
    return output


def test_a_night_ends_with_a_table_a_verdict_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = night_of(tmp_path, as_json=False)
    output.result("publish_recommendations", PUBLISHED | {"reused": True})
    output.finish("night 2024-05-01", 90.0)
    out, error = capsys.readouterr()
    assert error == ""  # the backend was asked for, so nothing is a surprise
    assert "expected: about 71 s for the steps: a run took as long\n" in out
    assert "1/8 ingest_events is done in 4.0 s, 1,120 rows; about 67 s left\n" in out
    assert "2/8 score_candidates is done in 61.5 s, 4,800 pairs, 0.00 M pairs/s; about 7 s left\n" in out
    assert "3/8 publish_recommendations was done before, in 2.0 s; about 7 s left\n" in out
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if "│" in line]
    assert ["ingest_events", "4.0", "", "", "1,120"] in cells
    assert ["score_candidates", "61.5", "40", "4,800", ""] in cells
    assert ["all, with the start of Spark", "90.0", "", "", ""] in cells
    assert "published: run 2024-05-01.1, certified on 24 users, 1 of 2 audits hold." in out
    assert "Next: lime status --config c.yaml" in out


def test_a_failed_night_says_what_readers_find_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = night_of(tmp_path, as_json=False)
    output.fail(1, ["error: a host was lost"])
    out = capsys.readouterr().out
    assert "Nothing was published" in out
    assert "What to do: the cause passes by itself" in out
    assert "Next: lime night --config c.yaml --ds 2024-05-01 --run-key first" in out


def test_a_night_as_json_is_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = night_of(tmp_path, as_json=True)
    output.result("publish_recommendations", PUBLISHED)
    output.finish("night 2024-05-01", 90.0)
    report = json.loads(capsys.readouterr().out)
    assert (report["exit_code"], report["published"], report["night"]) == (0, True, "2024-05-01")
    assert [(step["step"], step["pairs"]) for step in report["steps"]] == [
        ("ingest_events", None), ("score_candidates", 4800), ("publish_recommendations", 4800),
    ]  # fmt: skip


def test_results_are_tables_for_people_and_one_object_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = {
        "mha": PinManifest(seconds=1.5, run_id="r[1]", versions={"runs": 3}, reason="why", released=True),
        "rows": [{"model": "mha", "recall": 0.28811, "users": 12345}, {"model": "pop", "note": "x"}],
    }
    people = PeopleOutput("train", scores=False)
    people.result("train_model", result)
    people.finish("train_model x", 3.0)
    out = capsys.readouterr().out
    assert all(
        text in out for text in ("mha.versions.runs", "r[1]", "yes", "0.2881", "12,345", "done in 3.0 s")
    )
    assert ESCAPE not in out
    program = JsonOutput("train", scores=False)
    program.result("train_model", result)
    program.finish("train_model x", 3.0)
    assert json.loads(capsys.readouterr().out)["results"]["train_model"]["mha"]["reason"] == "why"


def test_the_counts_of_a_step_are_those_of_its_manifest() -> None:
    assert describe_step("verify_night", {"users": 24, "seconds": 1})[3:] == (24, None, None)
    assert describe_step("build_candidate_bank", {"candidates": 121})[3:] == (None, None, 121)
    assert NIGHT.options == definitions.OF_A_NIGHT


def test_a_bug_of_a_command_is_an_object_too(capsys: pytest.CaptureFixture[str]) -> None:
    broken = COMMANDS["check"]._replace(module="jobs.no_such_module")
    assert run("check", broken, argparse.Namespace(config="c.yaml", json=True, verbose=False)) == 70
    out, error = capsys.readouterr()
    assert error.splitlines()[-1].startswith("error: this is a bug: ModuleNotFoundError")
    report = json.loads(out)
    assert (report["exit_code"], report["errors"]) == (70, [error.splitlines()[-1]])
