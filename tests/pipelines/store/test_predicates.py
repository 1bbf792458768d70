"""Test that no string is read as SQL, no path as a pattern, and that names and run keys are plain."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession

from pipelines.operate.pins import FOR_EVER, LOG, list_files, set_properties
from pipelines.operate.upkeep import vacuum
from pipelines.settings.names import check_name, check_run_key
from pipelines.steps import Job
from pipelines.store.manifests import Manifest
from pipelines.store.predicates import EVERY_ROW, between, both, equals, literal
from pipelines.store.runs import find_manifest, record
from pipelines.store.tables import Warehouse
from tests.conftest import open_shop

ODD = (
    "x' OR 'a'='a",
    "it's",
    "\\",
    "\\'",
    "${spark.app.name}",
    "${env:HOME}",
    "--",
    "/*",
    '"',
    "`",
    "%_\\%",
    "🙂é\n\0",
)


@given(text=st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(ODD))
@example("\\u0027")
@settings(max_examples=200)
def test_spark_s_parser_reads_a_literal_as_its_text(spark: SparkSession, text: str) -> None:
    parse = spark._jsparkSession.sessionState().sqlParser().parseExpression
    found = parse(equals(run_id=text))
    assert found.left().sql() == "run_id"
    assert found.right().value().toString() == text


def test_predicates_accept_only_plain_column_names() -> None:
    where = both(equals(source="events"), between("drop_ds", "2024-01-01", "2024-01-02"))
    assert where == "source = 'events' AND drop_ds >= '2024-01-01' AND drop_ds <= '2024-01-02'"
    assert literal("a'b") == r"'a\u0027b'"
    assert EVERY_ROW == "true"
    with pytest.raises(AssertionError):
        equals(**{"a = 1 OR b": "c"})


class Numbered(Manifest):
    """A manifest with a number."""

    job = Job.TRAIN_MODEL
    n: int = 0


def test_rewriting_the_row_of_a_run_with_sql_in_its_id_changes_no_other_row(empty_shop: Warehouse) -> None:
    odd = "x' OR 'a'='a"
    for run_id, number in (("plain", 1), (odd, 1), (odd, 2)):
        record(empty_shop, run_id, "2024-01-01", Numbered(n=number))
    again = Warehouse(empty_shop.spark, empty_shop.settings)
    assert [find_manifest(again, run_id, Numbered) for run_id in ("plain", odd)] == [
        Numbered(n=1),
        Numbered(n=2),
    ]


def test_a_warehouse_may_have_any_path(spark: SparkSession, tmp_path: Path) -> None:
    """Delta's statements read a path as a name, Spark's readers as a pattern, and both replace variables."""
    warehouse = open_shop(spark, tmp_path / "te`am's [a]{b} ${spark.app.name} 100%?*")
    record(warehouse, "run", "2024-01-01", Numbered())
    set_properties(warehouse, "runs", {LOG: FOR_EVER})
    assert warehouse.delta("runs").detail().collect()[0]["properties"][LOG] == FOR_EVER
    set_properties(warehouse, "runs", {LOG: None})
    files = list_files(warehouse, "runs").count()
    assert files > 0
    warehouse.delta("runs").delete("true")
    assert vacuum(warehouse, "runs", 0) > 0


@pytest.mark.parametrize(
    "key",
    ["manual__2024-05-01T00:00:00+00:00", "scheduled__2024-05-01T00:00:00.123456+00:00", "a", "x.y~z", "9"],
)
def test_a_run_key_may_be_a_run_id_of_airflow_or_a_plain_text(key: str) -> None:
    assert check_run_key(key) == key


@pytest.mark.parametrize(
    "key", ["", "it's", "x' OR 'a'='a", "a b", "a/b", "..", "é", "a\n", "k" * 251, "${x}", "*"]
)
def test_any_other_run_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match=r"^the run key .* letters, digits and _ \. ~ : \+ - "):
        check_run_key(key)


@pytest.mark.parametrize(
    "name", ["", "a/b", "..", "it's", "a:b", "-a", "champions", "mha.training", "mha.new", "n" * 65]
)
def test_a_name_that_is_not_a_free_folder_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"choose another one$"):
        check_name(name)
