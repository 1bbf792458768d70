"""The address and the prefix of a store are checked before a job starts."""

from __future__ import annotations

import pytest

from pipelines.settings.export import RedisExport
from tests.pipelines.udfs.stores import SECRET

NO_NAMES = ["lime*", "a[b]?", "{lime}", "li me", "", "lime:", ":lime", "l\\ime", "lime:2024-05-09.1"]


NO_URLS = [
    "redis://h:port/0", "http://h/0", "redis://h/name", "redis:///0",
    f"redis://:{SECRET}@h/0", f"redis://h/0?password={SECRET}", "redis://h/0?password=s3cr", "redis://h/0#qqz",
]  # fmt: skip


@pytest.mark.parametrize("prefix", NO_NAMES)
def test_a_prefix_that_is_no_plain_name_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="the prefix must be letters, digits"):
        RedisExport(url="redis://host:6379/0", prefix=prefix)


@pytest.mark.parametrize("prefix", ["lime", "x:y", "Shop-1.lists_2", "0"])
def test_a_plain_prefix_is_accepted(prefix: str) -> None:
    assert RedisExport(url="redis://host/0", prefix=prefix).prefix == prefix


@pytest.mark.parametrize("url", NO_URLS)
def test_a_url_that_no_client_understands_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="URL") as refused:
        RedisExport(url=url)
    messages = [each["msg"] for each in refused.value.errors()]  # type: ignore[attr-defined]
    assert not any(part in text for text in messages for part in ("s3cr", "qqz", SECRET))
