"""The `export` section of the settings: where published lists are served from."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, Field

from pipelines.settings.base import Section, StoragePath, Variable
from pipelines.settings.secrets import check_url

URL_OPTIONS = {
    "ssl_ca_certs", "ssl_ca_path", "ssl_cert_reqs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname",
}  # fmt: skip
# A prefix can be read in one way only before `:VERSION:`, and has no character with a meaning in the patterns
# of a scan or in the hash tags of a cluster.
PREFIX = r"(?:(?!\d{4}-\d\d-\d\d)[A-Za-z0-9_.-]+)(?::(?!\d{4}-\d\d-\d\d)[A-Za-z0-9_.-]+)*"


def _refuse_password(url: str) -> str:
    return check_url(url, "name the environment variable that holds it in password_env")


def _check_address(url: str) -> str:
    """Check that a client can use the URL; no message repeats it, as it may hold a secret."""
    parts = urlsplit(url)
    try:
        known = (
            parts.scheme in ("redis", "rediss") and parts.hostname and (parts.port is None or parts.port > 0)
        )
    except ValueError:
        known = False
    if not known or not re.fullmatch(r"(/[0-9]{0,5})?", parts.path):
        raise ValueError(
            "the URL must be redis://HOST:PORT/0, or rediss://HOST:PORT/0 for TLS (with USER@ before the "
            "host where the store has users; letters such as @ / ? # in it as %40 %2F %3F %23)"
        )
    if parts.fragment or parse_qs(parts.query, keep_blank_values=True).keys() - URL_OPTIONS:
        raise ValueError(
            f"the URL may have the options {', '.join(sorted(URL_OPTIONS))} after its ?, and has another; a "
            "password belongs in an environment variable that password_env names"
        )
    return url


def _check_prefix(prefix: str) -> str:
    if len(prefix) > 200 or not re.fullmatch(PREFIX, prefix, re.ASCII):
        raise ValueError(
            "the prefix must be letters, digits and _ . - in parts that a colon separates, none of them a "
            "date, 200 letters at most, such as lime or shop:lime; keys under another prefix remain"
        )
    return prefix


class RedisExport(Section):
    """A Redis or Valkey store that serves lists: a single server or a cluster."""

    url: Annotated[str, AfterValidator(_refuse_password), AfterValidator(_check_address)]
    """The URL: `redis://HOST:PORT/0`, or `rediss://` for TLS, with `USER@` before the host if the store has
    users, and never with a password; for a cluster, the URL of any of its servers."""
    password_env: Variable | None = None
    """The name of the driver's environment variable that holds the password; null: there is no password."""
    cluster: bool | None = None
    """Whether the store is a cluster; null: the server says whether it is one."""
    prefix: Annotated[str, AfterValidator(_check_prefix)] = "lime"
    """The start of every key: 1 to 200 letters, digits and `_ . -`, in parts that a colon separates."""
    keys_per_second: int = Field(default=20_000, ge=1)
    """The keys that a load writes in a second, over all its tasks."""
    ttl_days: int = Field(default=7, ge=1)
    """The days after which a night that no other night follows expires."""
    grace_seconds: float = Field(default=5.0, ge=0)
    """The seconds for which the version before stays readable after the switch to a new one."""
    patience_seconds: float = Field(default=60.0, ge=0)
    """The seconds that a load waits for a failover to end before it gives up."""


class ParquetExport(Section):
    """A folder of Parquet files."""

    path: StoragePath
    """The folder: a local path or any Hadoop URI, without a password."""
    users_per_file: int = Field(default=100_000, ge=1)
    """The users of a file."""


class ExportSettings(Section):
    """Where published lists are exported to; by default nowhere."""

    redis: RedisExport | None = None
    """The Redis or Valkey store that serves the lists; null: none."""
    parquet: ParquetExport | None = None
    """The folder of Parquet files that holds the lists; null: none."""
