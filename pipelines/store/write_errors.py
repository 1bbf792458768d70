"""Define the errors of tables: a table is missing, or Delta refuses to write rows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from delta import exceptions as delta_errors
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from lime_model.errors import LimeError
from pipelines.schemas import TABLES

# Each error is named: those that Delta raises do not derive from the first one, although its docs say so.
CONFLICTS = (
    delta_errors.DeltaConcurrentModificationException,
    delta_errors.ConcurrentWriteException,
    delta_errors.ConcurrentAppendException,
    delta_errors.ConcurrentDeleteReadException,
    delta_errors.ConcurrentDeleteDeleteException,
    delta_errors.ConcurrentTransactionException,
    delta_errors.MetadataChangedException,
    delta_errors.ProtocolChangedException,
)
VIOLATION = re.compile(r"DELTA_VIOLATE_CONSTRAINT_WITH_VALUES\] CHECK constraint (\w+) ")


class MissingTable(LimeError):
    """A job reads a table that no job has written yet."""


class WriteConflict(LimeError):
    """Another writer changed the same rows of a table first."""

    remedy = "retry"


class RowRefused(LimeError):
    """A row breaks a constraint of its table."""


@contextmanager
def writing(name: str) -> Iterator[None]:
    """Raise what Delta refuses while the block writes a table as an error with a message of one line.

    Raises:
        RowRefused: a row breaks a constraint of the table.
        WriteConflict: another writer changed the same rows meanwhile.
    """
    try:
        yield
    except CONFLICTS as error:
        raise WriteConflict(
            f"table {name}: another writer changed the same rows while this job wrote them "
            f"({type(error).__name__}); nothing of this write was committed. Run the job again: "
            "what is done stays done"
        ) from error
    except (PySparkException, Py4JJavaError) as error:
        if found := VIOLATION.search(str(error)):
            rules = TABLES[name].constraints if name in TABLES else {}
            rule = rules.get(found[1], "not one of this project")
            raise RowRefused(
                f"table {name}: a row breaks the constraint {found[1]} ({rule}); nothing "
                "of this write was committed. Look at the rows before this table, they are wrong"
            ) from error
        raise
