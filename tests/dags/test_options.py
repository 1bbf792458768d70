"""The options of the DAGs: several tenants from one file, and messages that say what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dags.options import Options, read_options
from tests.dags.test_dags import ROOT, airflow_environment, python

KINDS = ("nightly_scoring", "weekly_training", "weekly_upkeep", "operations")


def tenants(tmp_path: Path, text: str) -> dict[str, str]:
    file = tmp_path / "tenants.yaml"
    file.write_text(text)
    return {"LIME_TENANTS": str(file)}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: {config: a.yaml, deadline: 10:30}", "tenants.a.deadline is 630: "),
        ("a: {config: a.yaml, deadline: 10:30}", "put it in quotes"),
        ("a: {config: a.yaml, deadline: '25:00'}", "tenants.a.deadline is '25:00': it is no time of day"),
        ("a: {config: a.yaml, shedule: '@daily'}", "tenants.a.shedule is no option (did you mean schedule?)"),
        ("a: {config: a.yaml, schedule: hourly}", "tenants.a.schedule is 'hourly': it is neither a cron"),
        ("a: {config: a.yaml, training_schedule: 99 1 * * *}", "tenants.a.training_schedule is '99 1 * * *'"),
        ("a: {config: a.yaml, upkeep_schedule: events}", "tenants.a.upkeep_schedule is 'events'"),
        (
            "a: {config: a.yaml, deadline: '06:00', schedule: '@weekly'}",
            "tenants.a: the deadline '06:00' needs a schedule that is daily or `events`, not ",
        ),
        ("a: {config: a.yaml, applications: 0}", "tenants.a.applications is 0: input should be greater than"),
        ("a: {config: a.yaml, first_night: soon}", "tenants.a.first_night is 'soon': "),
        ("a: {}", "tenants.a is {}, and each tenant needs its own settings file; write config: "),
        ("a b: {config: a.yaml}", "tenants.a b: 'a b' is no name of a tenant"),
        ("a: {config: a.yaml, config: b.yaml}", "the key 'config' occurs twice; remove one"),
    ],
)
def test_a_mistake_names_file_key_value_and_remedy(text: str, said: str, tmp_path: Path) -> None:
    given = tenants(tmp_path, f"tenants:\n  {text}\n")
    found = read_options(given)
    assert found.tenants == []
    (problem,) = found.problems
    assert problem.startswith(given["LIME_TENANTS"])
    assert said in problem


@pytest.mark.parametrize("text", ["", "tenants: {}", "shops: {a: {config: a.yaml}}", "tenants: {a: ["])
def test_a_file_without_tenants_is_one_sentence(text: str, tmp_path: Path) -> None:
    given = tenants(tmp_path, text)
    found = read_options(given)
    assert found.tenants == []
    assert [problem.startswith(given["LIME_TENANTS"]) for problem in found.problems] == [True]
    missing = read_options({"LIME_TENANTS": str(tmp_path / "none.yaml")})
    assert missing.problems == [
        f"{tmp_path}/none.yaml: No such file or directory; correct LIME_TENANTS, or the rights of the file"
    ]


def test_an_option_comes_from_the_tenant_or_the_environment_or_its_default(tmp_path: Path) -> None:
    common = {"LIME_POOL": "cores", "LIME_CATCHUP": "1", "LIME_DEADLINE": "", "LIME_JARS": ""}
    (alone,) = read_options(common).tenants
    assert (alone.name, alone.pool, alone.catchup, alone.deadline, alone.jars) == ("", "cores", True, "", "")
    assert alone.config == Options().config
    several = "tenants: {a: &a {config: a.yaml, pool: own}, b: {<<: *a, config: b.yaml}, c: {config: c.yaml}}"
    found = read_options(tenants(tmp_path, several) | common)
    assert found.problems == []
    assert [(each.name, each.config, each.pool) for each in found.tenants] == [
        ("a", "a.yaml", "own"), ("b", "b.yaml", "own"), ("c", "c.yaml", "cores"),
    ]  # fmt: skip
    assert found.tenants[0].asset("events").name == "lime://a/events"


def test_a_mistake_in_the_environment_is_said_once_and_twins_are_refused(tmp_path: Path) -> None:
    text = "tenants: {a: {config: a.yaml}, b: {config: b.yaml}, c: {config: a.yaml}}"
    found = read_options(tenants(tmp_path, text) | {"LIME_RETRY_SECONDS": "soon"})
    assert len(found.problems) == 2
    assert found.problems[0].startswith("the environment variable LIME_RETRY_SECONDS is 'soon'")
    assert "tenants.c.config is 'a.yaml', as for the tenant a" in found.problems[1]
    (problem,) = read_options({"LIME_DEADLINE": "06:00", "LIME_SCHEDULE": "@hourly"}).problems
    assert problem.startswith("the environment: the deadline '06:00' needs a schedule")


def test_the_example_is_right() -> None:
    found = read_options({"LIME_TENANTS": str(ROOT / "conf" / "tenants.yaml")})
    assert found.problems == []
    assert [each.name for each in found.tenants] == ["shop_a", "shop_b"]


# Airflow's own reader of the folder, as its DAG processor uses it.
BAG = """
import json
from pathlib import Path
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder="dags")
errors = {Path(file).name: text for file, text in bag.import_errors.items()}
about = {name: [dag.tags and sorted(dag.tags), dag.owner] for name, dag in bag.dags.items()}
parsed = sorted(Path(stat.file).name for stat in bag.dagbag_stats)
print(json.dumps([about, errors, parsed]))
"""


def test_a_wrong_tenant_is_an_import_error_and_the_others_keep_their_dags(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    text = "tenants: {good: {config: a.yaml, owner: ann}, bad: {config: b.yaml, schedule: hourly}}"
    dags, errors, _ = json.loads(python(BAG, env | tenants(tmp_path, text)))
    assert set(dags) == {f"{kind}__good" for kind in KINDS}
    assert dags["nightly_scoring__good"] == [["good", "lime"], "ann"]
    assert list(errors) == ["check_options.py"]
    assert "tenants.bad.schedule is 'hourly'" in errors["check_options.py"]


def test_without_a_file_there_is_one_tenant_without_a_name(tmp_path: Path) -> None:
    env = airflow_environment(tmp_path, ROOT / "conf" / "local.yaml")
    dags, errors, parsed = json.loads(python(BAG, env))
    assert (set(dags), errors) == (set(KINDS), {})
    assert parsed == sorted(["check_options.py", *(f"{kind}.py" for kind in KINDS)])
