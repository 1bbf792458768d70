"""Secrets are refused in the settings, never repeated, and read from the environment."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import pytest
from pyspark.sql import SparkSession

from pipelines.settings.base import SettingsError
from pipelines.settings.settings import load_settings
from pipelines.store.session import open_session
from tests.pipelines.settings.files import write

HUSH = "hunter2"


SECRETS: list[dict[str, Any]] = [
    {"spark": {"conf": {key: HUSH}}}
    for key in (
        "spark.my.password", "spark.ssl.keyPass", "spark.hadoop.fs.azure.sas.box.account.blob.example",
        "spark.hadoop.fs.azure.account.key.account", "spark.hadoop.fs.s3a.session.token", "spark.my.apiKey",
        "spark.hadoop.fs.s3a.session.key", "spark.executorEnv.AWS_ACCESS_KEY_ID", "spark.my.private_key",
        "spark.executorEnv.REDIS_AUTH", "spark.my.pass", "spark.executorEnv.PASS",
    )
] + [
    {"spark": {"conf": {"spark.driver.extraJavaOptions": value}}}
    for value in (
        f"-XX:+UseG1GC -Dx.password={HUSH}", f"-Dssl.keyStorePassword={HUSH}", f"-Dmy.secret: {HUSH}",
        f"-Dpass={HUSH}", f"-Dauth={HUSH}", f"-Durl=jdbc:pg://lime:{HUSH}@db/x",
        f"-Durl=https://a/x?sv=1&sig={HUSH}", f"--password {HUSH}",
    )
] + [
    {"export": {"redis": {"url": url}}}
    for url in (
        f"redis://:{HUSH}@lists:6379/0", f"redis://lime:{HUSH}@lists", f"redis://lists:6379/0?password={HUSH}",
        f"redis://lists?username=a&pass={HUSH}", f"redis://:{HUSH}/@lists", [f"redis://:{HUSH}@lists"],
    )
] + [
    {"export": {"redis": {"url": "redis://lists", "password_env": f"{HUSH}!"}}},
    {"spark": {"secrets": {"fs.s3a.secret.key": f"{HUSH}/+"}}},
    {"spark": {"conf": {"spark.x": [HUSH]}}},
    {"spark": {"secret": HUSH}},
    {"warehouse": f"s3a://KEY:{HUSH}@lake/x"},
    {"drops": f"https://lake/x?sig={HUSH}"},
    {"ids": {"user_id": f"https://lime:{HUSH}@x"}},
]  # fmt: skip


@pytest.mark.parametrize("changes", SECRETS)
def test_a_secret_anywhere_is_refused_and_never_repeated(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(write(tmp_path, **changes))
    printed = "".join(traceback.format_exception(caught.value))  # with the chained errors
    assert HUSH not in printed
    assert next(iter(changes)) in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spark.hadoop.fs.s3a.aws.credentials.provider", "com.amazonaws.auth.EnvCredentialsProvider"),
        ("spark.shuffle.sort.bypassMergeThreshold", "200"),
        ("spark.authenticate", "true"),
        ("spark.hadoop.fs.azure.account.auth.type.lake", "OAuth"),
        ("spark.driver.extraJavaOptions", "-XX:+ExitOnOutOfMemoryError -Djava.io.tmpdir=/data/tmp -Dx=a:b"),
        ("spark.kubernetes.driver.secretKeyRef.LAKE_SECRET", "lake:secret"),
        ("spark.security.credentials.hive.enabled", "false"),
        ("spark.jars", "/jars/a.jar,s3a://lake/b.jar"),
    ],
)  # fmt: skip
def test_a_value_that_only_resembles_a_secret_is_accepted(tmp_path: Path, key: str, value: str) -> None:
    assert load_settings(write(tmp_path, spark={"conf": {key: value}})).spark.conf[key] == value


def test_secrets_go_from_the_environment_to_hadoop_alone(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(write(tmp_path, spark={"secrets": {"fs.s3a.secret.key": "LAKE_SECRET"}}))
    monkeypatch.delenv("LAKE_SECRET", raising=False)
    with pytest.raises(
        SettingsError,
        match=r"fs.s3a.secret.key: the environment variable that it names is not set",
    ):
        open_session(settings, "tests")
    monkeypatch.setenv("LAKE_SECRET", "hush")
    session = open_session(settings, "tests")
    assert session.sparkContext._jsc.hadoopConfiguration().get("fs.s3a.secret.key") == "hush"
    assert "hush" not in str(session.sparkContext.getConf().getAll())
    session.sparkContext._jsc.hadoopConfiguration().unset("fs.s3a.secret.key")
