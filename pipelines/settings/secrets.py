"""Find secrets anywhere in the settings and refuse them, without repeating them in a message.

People share settings files, and the values of `spark.conf` end up on a command line, where every user of the
machine can read them. A secret lives in the environment of the driver; the settings name the variable
(`spark.secrets`, `export.redis.password_env`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

# The default of spark.redaction.regex, and what Java, Hadoop and the clouds call their keys in addition.
# Spark gets this expression, too, so it must also be a regular expression of Java.
SECRET = re.compile(
    r"(?i)secret|passw|passphrase|passwd|pwd|token|key[._-]?pass|(^|[._-])(pass(\b|_|$)|auth$)"
    r"|(^|[._-])sas([._-]|$)|signature"
    r"|(access|account|private|encryption|session|api|shared|storage|master|client)[._-]?key"
    r"|credentials?($|[._-]?(value|json|key))"
)
# `name=value` or `name: value` in a longer text: Java's options, the query of a URL, a JDBC address.
INSIDE = re.compile(r"(?i)([\w.-]+)\s*[=:]\s*[^\s=:]")
SHAPES = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN|[?&;]sig=|\beyJ[\w-]{10,}\.[\w-]{10,}\.", re.IGNORECASE
)
USERINFO = re.compile(r"[\w+.-]+://[^/\s@]*:[^/\s@]*@")  # scheme://user:password@
OPTION = re.compile(r"(?i)(?:^|\s)--?[\w.-]*(?:secret|passw|token)[\w.-]*\s+[^\s-]")  # --password hush
QUERY = ("auth", "pass", "key", "sig", "code")  # options of URLs that are secret, in addition to SECRET
# These keys of Kubernetes name a secret of the cluster and where it is mounted; they do not hold it.
REFERENCE = re.compile(r"^spark\.kubernetes\.(driver|executor)\.(secrets|secretKeyRef)\.")


def names_secret(name: str) -> bool:
    """Whether the name of a key says that its value is a secret."""
    return bool(SECRET.search(name)) and not REFERENCE.match(name)


def holds_secret(text: str) -> bool:
    """Whether a value holds a secret: a password in a URL, a `-Dx.password=…`, a signed address or a key."""
    if USERINFO.search(text) or SHAPES.search(text) or OPTION.search(text):
        return True
    return any(names_secret(name.removeprefix("-D")) for name in INSIDE.findall(text))


def check_conf(conf: Mapping[str, str]) -> dict[str, str]:
    """Return a Spark configuration if it holds no secret, as it ends up on a command line.

    Raises:
        ValueError: a key names a secret or a value holds one; the message repeats only the key.
    """
    for key, value in conf.items():
        if names_secret(key):
            hadoop = key.removeprefix("spark.hadoop.")
            raise ValueError(
                f"{key} looks like a secret, and spark.conf goes on a command line; name the environment "
                f"variable that holds it in spark.secrets, as {hadoop}: NAME"
            )
        if holds_secret(value):
            raise ValueError(
                f"the value of {key} holds what looks like a secret, and spark.conf goes on a command line; "
                "put Hadoop's keys into spark.secrets, and options of Java into a file that only the user of "
                "driver and executors can read (JDK_JAVA_OPTIONS=@FILE in their environment)"
            )
    return dict(conf)


def check_url(url: str, remedy: str) -> str:
    """Return a URL if it holds no password.

    Args:
        url: the URL of a store or a storage.
        remedy: the end of the error message: where the password belongs.

    Raises:
        ValueError: the URL holds a password, in its user part or in its query.
    """
    parts = urlsplit(url)
    # A slash in a password ends the host for a parser. For other storages, an @ may be a part of the path.
    torn = parts.scheme.startswith("redis") and ":" in url.partition("://")[2].rpartition("@")[0]
    asked = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    secret = any(names_secret(name) or name.lower() in QUERY for name in asked)
    if parts.password or torn or secret or SHAPES.search(url):
        raise ValueError(f"the URL holds a password; {remedy}")
    return url


def check_variable(name: str) -> str:
    """Return the name of an environment variable if it is a valid one.

    Raises:
        ValueError: it can't be such a name. It may be the secret itself, so the message does not repeat it.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "this is not the name of an environment variable (letters, digits and _); the settings name the "
            "variable that holds a secret, never the secret"
        )
    return name


def shown(where: str, value: object) -> str:
    """Show a wrong value at the end of an error message, unless it may be or hold a secret.

    Args:
        where: the key, such as `night.k`.
        value: the wrong value; a complete section is not shown.
    """
    if value is None or isinstance(value, bool | int | float):
        return f" (got {value!r})"
    if not isinstance(value, str) or where.startswith(("spark.", "export.")):
        return ""
    if names_secret(where) or holds_secret(value):
        return ""
    return f" (got {value!r})" if len(value) <= 100 else f" (got {value[:100]!r}…)"
