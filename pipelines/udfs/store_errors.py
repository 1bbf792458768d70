"""Explain the errors of a Redis or Valkey store in one sentence each: what happened, and the remedy.

Where the cause is known, the server's own words are left out: a client puts keys, values and sometimes its
arguments into them, and a password may be among these.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from redis import exceptions as errors

from lime_model.errors import LimeError

Explanation = tuple[str, str]  # what happened, and the remedy
AGAIN = "then run the job again: it goes on with what is missing"
# The explanations by the first word of the server's answer.
ANSWERS: dict[str, Explanation] = {
    "OOM": (
        "it is full (maxmemory) and evicts nothing",
        f"give it more memory: two nights must fit, the one that is served and the next; {AGAIN}",
    ),
    "READONLY": (
        "this server is a read-only replica",
        f"let export.redis.url name the primary, or wait until a failover has ended, {AGAIN}",
    ),
    "LOADING": ("it is loading its data from disk", f"wait until it has, {AGAIN}"),
    "MASTERDOWN": ("this server is a replica that has lost its primary", f"wait for the failover, {AGAIN}"),
    "CLUSTERDOWN": ("the cluster is down, or some of its slots have no server", f"repair it, {AGAIN}"),
    "TRYAGAIN": ("slots of the cluster are being moved", f"wait until they are, {AGAIN}"),
    "MOVED": (
        "this server is one of a cluster",
        "leave export.redis.cluster out, or set it to true",
    ),
    "ASK": ("this server is one of a cluster", "leave export.redis.cluster out, or set it to true"),
    "CROSSSLOT": (
        "this server is one of a cluster",
        "leave export.redis.cluster out, or set it to true",
    ),
    "NOAUTH": (
        "it needs a password and was given none",
        "put the password into an environment variable and name that in export.redis.password_env",
    ),
    "WRONGPASS": (
        "it refuses the user or the password",
        "correct the user in export.redis.url, or the environment variable that export.redis.password_env "
        "names",
    ),
    "NOPERM": (
        "its access list refuses the user a command or a key",
        "allow GET, SET, EXISTS, UNLINK, EXPIRE, SCAN, EVAL, INFO, CLUSTER and those of sets and hashes on "
        "keys that begin with export.redis.prefix",
    ),
    "MISCONF": ("it can't save to its disk and takes no writes", f"repair its disk, {AGAIN}"),
    "NOREPLICAS": ("it has too few replicas and takes no writes", f"bring them back, {AGAIN}"),
    "WRONGTYPE": (
        "a key that begins with the prefix belongs to another program",
        "choose another export.redis.prefix",
    ),
}  # fmt: skip
# Phrases of answers that begin with ERR and of the client's own errors, each with its key of `ANSWERS`.
PHRASES = (
    ("without any password configured", "WRONGPASS"),
    ("invalid password", "WRONGPASS"),
    ("username-password pair", "WRONGPASS"),
    ("authentication required", "NOAUTH"),
    ("slots are not covered", "CLUSTERDOWN"),
    ("is not covered by the cluster", "CLUSTERDOWN"),
    ("clusterdown", "CLUSTERDOWN"),
    ("masterdown", "MASTERDOWN"),
)
NO_CLUSTER = (
    "it is not a cluster",
    "leave export.redis.cluster out, or set it to false",
)
NO_DATABASE = (
    "it has no database of that number (a cluster has 0 alone)",
    "end export.redis.url with /0",
)
TOO_MANY = ("it has no room for another client", f"raise its maxclients, or end other clients, {AGAIN}")
NOT_TRUSTED = (
    "its certificate is not trusted",
    "add its authority to the host's, or name its file in export.redis.url by ?ssl_ca_certs=",
)
TLS = ("TLS failed", "begin export.redis.url with rediss:// for a server that speaks TLS, else with redis://")
UNKNOWN_HOST = ("no such host is known", "correct the host in export.redis.url")
LOOK = (
    "see whether it is up, reachable from driver and executors, and speaks TLS (rediss://) or not "
    f"(redis://), {AGAIN}"
)
SLOW = ("it did not answer in time", LOOK)
UNREACHABLE = ("it can't be reached", LOOK)
TRANSIENT = {"READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"}
TRANSIENT_CAUSES = (SLOW, UNREACHABLE)
AWAY = {"LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN"}  # a later run of the job may succeed
AWAY_CAUSES = (SLOW, UNREACHABLE, TOO_MANY)


@dataclass(frozen=True)
class StoreAddress:
    """The address of a store and the password for it."""

    url: str  # without a password
    password: str | None = field(repr=False)


class StoreProblem(LimeError):
    """The store refused something; the message says what an operator can do."""


class StoreAway(StoreProblem):
    """The store can't be reached at the moment, or is in the middle of a failover."""

    remedy = "retry"


class StoreFault(StoreProblem):
    """The store answered something that this module does not know."""

    remedy = "bug"


@contextmanager
def store_errors(store: StoreAddress) -> Iterator[None]:
    """Turn the errors of commands to the store into one sentence without a password.

    Raises:
        StoreProblem: a command failed. The client's own error is not chained to it, as it may hold a secret.
    """
    try:
        yield
    except (errors.RedisError, errors.RedisClusterException, OSError) as error:
        problem = describe(error, store)
    else:
        return
    raise problem from None


def describe(error: BaseException, store: StoreAddress) -> StoreProblem:
    """Explain an error of the store in one sentence; its class says who can do something about it."""
    code = _code(error)
    known = ANSWERS[code] if code else _cause(error)
    what, remedy = known or _unknown(error, store.password)
    again = code in AWAY or known in AWAY_CAUSES
    kind = StoreAway if again else StoreProblem if known else StoreFault
    return kind(f"the store at {show_url(store.url)}: {what}; {remedy}")


def is_transient(error: BaseException) -> bool:
    """Whether the same command may succeed in a moment: a failover or a break of the network."""
    code = _code(error)
    return code in TRANSIENT or (code is None and _cause(error) in TRANSIENT_CAUSES)


def show_url(url: str) -> str:
    """Return the URL without user, password and options."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "export.redis.url"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path if '@' not in parts.path else ''}"


def _unknown(error: BaseException, password: str | None) -> Explanation:
    """Repeat the words of an unknown error, without secrets."""
    words = _words(error)
    for secret in filter(None, (password,)):
        words = words.replace(secret, "…")
    words = re.sub(r"//[^\s/]*@", "//…@", words)
    return f"{type(error).__name__}: {words[:200]}", "please report this with the version of the server"


def _code(error: BaseException) -> str | None:
    """Return the key of `ANSWERS` that explains an error, or None."""
    for link in _chain(error):
        code = getattr(link, "status_code", None) or _words(link).split(" ", 1)[0]
        if code in ANSWERS:
            return str(code)
    text = " ".join(map(_words, _chain(error))).lower()
    return next((code for phrase, code in PHRASES if phrase in text), None)


def _cause(error: BaseException) -> Explanation | None:
    """Explain an error for which there is no answer of the server, or none that `ANSWERS` knows."""
    chain = list(_chain(error))
    text = " ".join(map(_words, chain))
    if "Cluster mode is not enabled" in text or "cluster support disabled" in text:
        return NO_CLUSTER
    if "DB index is out of range" in text or "can only be 0 in cluster mode" in text:
        return NO_DATABASE
    if "max number of clients" in text:
        return TOO_MANY
    if "CERTIFICATE_VERIFY_FAILED" in text or "certificate verify failed" in text:
        return NOT_TRUSTED
    if any(isinstance(link, ssl.SSLError) for link in chain) or "SSL" in text:
        return TLS
    if any(isinstance(link, socket.gaierror) for link in chain) or "Name or service not known" in text:
        return UNKNOWN_HOST
    if any(isinstance(link, errors.TimeoutError | TimeoutError) for link in chain):
        return SLOW
    reached = (errors.ConnectionError, errors.RedisClusterException, errors.ClusterError, OSError)
    return UNREACHABLE if any(isinstance(link, reached) for link in chain) else None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, each once."""
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or link.__context__


def _words(error: BaseException) -> str:
    """Return the first line of an error, without the command and values that a pipeline puts before it."""
    return next(iter(str(error).rsplit(" of pipeline caused error: ", 1)[-1].splitlines()), "")
