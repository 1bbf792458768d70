"""The options of the DAGs: from the environment for one tenant, or from a YAML file for several.

Without LIME_TENANTS there is one tenant without a name, whose options are environment variables: LIME_CONFIG
is the option `config`, and so on. With LIME_TENANTS, which names a YAML file, each tenant of the file has its
own DAGs, such as `nightly_scoring__shop_a`; an option that a tenant does not give is taken from the
environment:

    tenants:
      shop_a: {config: /etc/lime/shop-a.yaml, schedule: "30 2 * * *", deadline: "06:00"}
      shop_b: {config: /etc/lime/shop-b.yaml, pool: shop_b}

Both are read when Airflow parses a DAG. A mistake takes away the DAGs of its tenant only, and the import
error of `check_options.py` names it.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowException
from airflow.timetables.trigger import CronTriggerTimetable
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from dags.read_yaml import FileFault, nearest, read_mapping

HOME = Path(os.environ.get("LIME_HOME", Path(__file__).resolve().parent.parent))
NO_TIME = ("@once", "@continuous")  # schedules that name no time of day
DAILY = re.compile(r"@daily|@midnight|(\d+) (\d+) \* \* \S+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
EMPTY_COUNTS = ("jars",)  # an empty LIME_JARS means that there are none; other empty variables are not set
PAGE = "docs/operate.md lists the options"


def _check_cron(text: str) -> str:
    if text not in NO_TIME:
        try:
            CronTriggerTimetable(text, timezone="UTC").validate()
        except AirflowException as error:
            raise ValueError(
                'it is neither a cron expression in UTC such as "30 2 * * *" nor a preset such as @daily'
            ) from error
    return text


def _check_schedule(text: str) -> str:
    if text == "events":
        return text
    try:
        return _check_cron(text)
    except ValueError as error:
        raise ValueError(f"{error}; `events` starts a night by the asset") from None


def _check_clock(text: str) -> str:
    if text and not re.fullmatch(r"([01]?\d|2[0-3]):[0-5]\d", text):
        raise ValueError('it is no time of day in UTC such as "06:00"')
    return text


Cron = Annotated[str, AfterValidator(_check_cron)]
Text = Annotated[str, Field(min_length=1)]


class Options(BaseModel):
    """The options of the DAGs of one tenant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""  # the name of the tenant; empty if there is only one
    config: Text = str(HOME / "conf" / "local.yaml")  # the settings file of the jobs
    schedule: Annotated[str, AfterValidator(_check_schedule)] = "@daily"
    training_schedule: Cron = "0 6 * * 6"
    upkeep_schedule: Cron = "0 12 * * 0"
    deadline: Annotated[str, AfterValidator(_check_clock)] = ""
    wait_for: str = ""  # files of the day before the night, whose date replaces {day}
    wait_hours: float = Field(6.0, gt=0)
    first_night: dt.date = dt.date(2017, 1, 1)
    last_night: dt.date | None = None
    catchup: bool = False
    applications: int = Field(8, ge=1)  # 1: the night is one application; otherwise each step has its own
    connection: Text = "spark_default"
    driver_memory: Text = "3g"  # the settings are read too late to change the heap of the driver
    jars: str = str(HOME / ".jars")
    package: str = ""
    pool: Text = "default_pool"
    gpu_pool: str = ""  # empty: that of `pool`
    retry_seconds: float = Field(30.0, gt=0)
    owner: Text = "lime"
    namespace: Text = "lime"
    alarm_url_env: Text = "LIME_ALARM_URL"  # a web hook may hold a secret, so only its variable is named
    pages: bool = True  # whether a task writes the page of each night
    reports_url: str = ""
    history_url: str = ""
    results: str = ""  # folder that drivers in cluster mode and the workers of Airflow share

    @model_validator(mode="after")
    def _check_deadline(self) -> Self:
        if self.deadline and self.schedule != "events" and not DAILY.fullmatch(self.schedule):
            raise ValueError(
                f"the deadline {self.deadline!r} needs a schedule that is daily or `events`, not "
                f"{self.schedule!r}; change one of them"
            )
        return self

    @property
    def tags(self) -> list[str]:
        """The tags of the DAGs."""
        return ["lime", *filter(None, [self.name])]

    def dag_id(self, kind: str) -> str:
        """Return the id of a DAG of this tenant."""
        return f"{kind}__{self.name}" if self.name else kind

    def asset(self, kind: str) -> Asset:
        """Return the asset `events`, `recommendations` or `champions` of this tenant."""
        return Asset(f"lime://{self.name}/{kind}" if self.name else f"lime://{kind}")


class Found(NamedTuple):
    """The tenants whose options are right, and a sentence for each mistake of the others."""

    tenants: list[Options]
    problems: list[str]


def read_options(environment: Mapping[str, str] = os.environ) -> Found:
    """Read the options of all tenants."""
    common = {
        name: environment[variable]
        for name in Options.model_fields
        if (variable := f"LIME_{name.upper()}") in environment
        if name != "name" and (environment[variable] or name in EMPTY_COUNTS)
    }
    file = environment.get("LIME_TENANTS")
    if not file:
        return _check("the environment", "", {}, common)
    try:
        content = read_mapping(file)
        tenants = content.get("tenants")
        if list(content) != ["tenants"] or not isinstance(tenants, dict) or not tenants:
            raise FileFault(
                f"{file}: its keys are {sorted(map(str, content))}, and it must have the one key tenants, "
                "with a name and options for each tenant, such as shop_a: {config: /etc/lime/shop-a.yaml}"
            )
    except FileFault as fault:
        return Found([], [str(fault)])
    return _read_tenants(file, tenants, common)


def _read_tenants(file: str, tenants: dict[Any, Any], common: dict[str, str]) -> Found:
    found = Found([], [])
    owners: dict[str, str] = {}  # the first tenant with each settings file
    for name, given in tenants.items():
        where = f"tenants.{name}"
        if not (isinstance(name, str) and NAME.fullmatch(name)):
            found.problems.append(
                f"{file}: {where}: {name!r} is no name of a tenant: 1 to 64 letters, digits and _ . -, the "
                "first one a letter or digit; choose another one, in quotes if it is a number"
            )
        elif not isinstance(given, dict) or "config" not in given:
            found.problems.append(
                f"{file}: {where} is {given!r}, and each tenant needs its own settings file; write config: "
                "/etc/lime/shop-a.yaml"
            )
        elif (owner := owners.setdefault(str(given["config"]), name)) != name:
            found.problems.append(
                f"{file}: {where}.config is {given['config']!r}, as for the tenant {owner}, and both would "
                "run the same nights; give it a settings file of its own"
            )
        else:
            checked = _check(f"{file}: {where}", name, given, common)
            found.tenants.extend(checked.tenants)
            found.problems.extend(each for each in checked.problems if each not in found.problems)
    return found


def _check(where: str, name: str, given: dict[Any, Any], common: dict[str, str]) -> Found:
    """Check the options of one tenant.

    Args:
        where: the file and the key in it, for messages.
        name: the name of the tenant.
        given: its own options.
        common: the options of the environment.
    """
    known = set(Options.model_fields) - {"name"}
    unknown = [
        f"{where}.{key} is no option{nearest(str(key), known)}; correct it, {PAGE}"
        for key in given
        if key not in known
    ]
    own = {key: value for key, value in given.items() if key in known}
    try:
        options = Options.model_validate({**common, **own, "name": name})
    except ValidationError as error:
        faults = [_explain(where, own, each) for each in error.errors(include_url=False)]
        return Found([], unknown + faults)
    return Found([] if unknown else [options], unknown)


def _explain(where: str, own: dict[str, Any], error: Any) -> str:
    """Return a sentence with the place of a mistake, the value, the limit and the remedy."""
    said = error["msg"].removeprefix("Value error, ")
    if not error["loc"]:  # the mistake is between several options
        return f"{where}: {said}"
    key = str(error["loc"][0])
    place = f"{where}.{key}" if key in own else f"the environment variable LIME_{key.upper()}"
    hint = "put it in quotes" if error["type"] == "string_type" else "correct it"
    return f"{place} is {error['input']!r}: {said[0].lower()}{said[1:]}; {hint}, {PAGE}"
