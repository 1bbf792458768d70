"""The table of what Spark, Delta, Hadoop and the storages report: which kind of error it is, and its remedy.

A rule matches by any of its lines, regular expressions over "Java class: [CONDITION] message". The first rule
that fits any exception of a chain decides, so what is precise comes first.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from lime_model.errors import LimeError


class SparkRefused(LimeError):
    """Spark or a storage refused something that a person must change."""


class SparkLost(LimeError):
    """A host, a process or a connection was lost; another attempt may find it."""

    remedy = "retry"


class DiskFull(LimeError):
    """There is no room on a host's local disk."""

    remedy = "retry"


class Rule(NamedTuple):
    """Exceptions that match `pattern` are an `error` that says `what` (of a `{host}`) and `remedy`."""

    error: type[LimeError]
    pattern: re.Pattern[str]
    what: str
    remedy: str


def _rule(error: type[LimeError], what: str, patterns: str, remedy: str) -> Rule:
    lines = [line.strip() for line in patterns.strip().splitlines()]
    return Rule(error, re.compile("|".join(lines)), what, remedy)


TABLE: Final = (
    _rule(
        DiskFull,
        "no room on the disk of {host}",
        r"""
        No space left on device
        Disk quota exceeded
        not enough space on the disk
        DiskOutOfSpace
        """,
        "make room under its Spark local directory, or give executors another spark.local.dir; then run the "
        "job again, it takes up what is missing",
    ),
    _rule(
        SparkRefused,
        "Delta's jars are not on Spark's class path",
        r"""
        ClassNotFoundException.*io\.delta|ClassNotFoundException.*sql\.delta
        DATA_SOURCE_NOT_FOUND.*delta
        catalog plugin class for catalog 'spark_catalog'|CATALOG_PLUGIN_CLASS
        """,
        "give them to spark-submit by --jars (docs/cluster.md), or run `make setup`",
    ),
    _rule(
        SparkRefused,
        "no connector for this storage",
        r"""
        No FileSystem for scheme
        UnsupportedFileSystemException
        (?:ClassNotFoundException|NoClassDefFoundError).*(?:hadoop|s3a|azure|google|amazon|FileSystem)
        """,
        "put its jars on Spark's class path, of the version of Spark's Hadoop (s3a: hadoop-aws, abfs: "
        "hadoop-azure; spark-submit --packages or spark.jars), or mend the path in the settings",
    ),
    _rule(
        SparkRefused,
        "the storage does not let this user in",
        r"""
        AccessControlException
        AccessDenied
        Permission denied
        Status Code: 40[13]
        AuthorizationPermissionMismatch
        AuthenticationFailed
        InvalidAccessKeyId
        SignatureDoesNotMatch
        NoAwsCredentials|NoAuthWithAWS|CredentialInitialization|Unable to load credentials
        GSSException|KrbException
        Invalid directory or I/O error
        Read-only file system|Mkdirs failed|DELTA_CANNOT_CREATE_LOG_PATH
        ParentNotDirectoryException|Not a directory
        """,
        "grant the right, or mend spark.secrets and the environment variables that it names",
    ),
    _rule(
        SparkRefused,
        "the storage has no such bucket or container",
        r"""
        NoSuchBucket
        The specified container does not exist
        FilesystemNotFound
        UnknownStoreException
        """,
        "create it, or mend the path in the settings",
    ),
    _rule(
        SparkRefused,
        "the certificate of a server is not accepted",
        r"""
        SSLHandshakeException
        SSLPeerUnverified
        CertificateException
        CertPathValidator
        """,
        "add its authority to the trust store of Java on every host, or mend the address",
    ),
    _rule(
        SparkRefused,
        "a path is not one that its storage can have",
        r"""
        URISyntaxException
        Wrong FS
        Can not create a Path
        Relative path in absolute URI
        InvalidPathException
        MalformedURLException
        Invalid bucket name|bucket is null
        File name too long
        """,
        "mend warehouse, drops, bundles or export.parquet.path in the settings",
    ),
    _rule(
        SparkRefused,
        "Spark has no master that it understands",
        r"""
        Could not parse Master URL
        A master URL must be set|MASTER_URL_NOT_SET
        Master must either be
        Invalid (?:Spark|master) URL
        """,
        "set spark.master in the settings, such as local[*], or start the job by spark-submit --master",
    ),
    _rule(
        SparkRefused,
        "Spark refuses a value of its configuration",
        r"""
        INVALID_CONF_VALUE
        CANNOT_MODIFY_CONFIG
        INVALID_(?:EXECUTOR|DRIVER)_MEMORY
        spark\.[\w.]+ (?:must|should|cannot|is invalid)
        System memory \d+ must be
        (?:Size|Time) must be specified
        Failed to parse (?:byte|time) string
        NumberFormatException.*(?:spark|Size|byte)
        """,
        "mend it under spark.conf in the settings, or where spark-submit gets it",
    ),
    _rule(
        SparkRefused,
        "the driver was to receive more than spark.driver.maxResultSize",
        r"spark\.driver\.maxResultSize",
        "raise spark.driver.maxResultSize and spark.driver.memory",
    ),
    _rule(
        SparkRefused,
        "a jar needs a newer Java than this one",
        r"UnsupportedClassVersionError",
        "run driver and executors with Java 17 or newer",
    ),
    _rule(
        SparkRefused,
        "the executors' Python is not the driver's",
        r"""
        PYTHON_VERSION_MISMATCH|Python in worker has different version
        Cannot run program
        ModuleNotFoundError: No module named
        """,
        "give every host the same Python and this project (docs/cluster.md: PYSPARK_PYTHON, lime.zip)",
    ),
    _rule(
        SparkLost,
        "out of memory on {host}",
        r"""
        OutOfMemory
        GC overhead
        UNABLE_TO_ACQUIRE_MEMORY
        Cannot allocate memory
        Not enough memory to build and broadcast
        (?:^|\n)MemoryError
        """,
        "run the job again, with more spark.driver.memory or spark.executor.memory if it comes back",
    ),
    _rule(
        SparkLost,
        "an executor or its Python worker was lost ({host})",
        r"""
        ExecutorLostFailure|ExecutorDeadException
        SparkContext (?:was|has been) (?:shut ?down|stopped)|stopped SparkContext
        All masters are unresponsive|Master removed our application
        FetchFailed|Failed to connect to /|blockmgr-|BlockNotFoundException|Failed to get broadcast
        exited unexpectedly|Python worker failed to connect back|WORKER_LOST
        TaskKilled|Job \d+ cancelled|Could not find CoarseGrained
        """,
        "what is committed stays: run the job again, and look at the host's memory if it comes back",
    ),
    _rule(
        SparkLost,
        "a storage or a host can't be reached",
        r"""
        UnknownHostException|UnresolvedAddressException
        ConnectException|NoRouteToHost|SocketException|ClosedChannelException|Connection (?:refused|reset)
        SocketTimeout|ConnectTimeout|RpcTimeoutException|TimeoutException
        SdkClientException|AWSClientIOException|AWSServiceIOException|AWSStatus5
        SlowDown|ServiceUnavailable|Status Code: 5\d\d
        RetriableException|StandbyException|SafeModeException|BlockMissingException
        """,
        "nothing unfinished was committed: run the job again once it can be reached, or mend its address",
    ),
    _rule(
        SparkLost,
        "another writer changed the same table meanwhile",
        r"""
        DELTA_CONCURRENT
        Concurrent(?:Append|Write|Delete\w+|Transaction|Modification)Exception
        MetadataChangedException|ProtocolChangedException
        FileAlreadyExistsException
        """,
        "nothing of this write was committed: run the job again",
    ),
    _rule(
        SparkRefused,
        "a table holds other columns or types than the settings and this version write",
        r"""
        DELTA_FAILED_TO_MERGE_FIELDS|DELTA_MERGE_INCOMPATIBLE_DATATYPE
        DELTA_\w*SCHEMA|DELTA_METADATA_MISMATCH
        CANNOT_MERGE|INCOMPATIBLE_DATA
        PARQUET_COLUMN_DATA_TYPE_MISMATCH|PARQUET_TYPE_|SchemaColumnConvertNotSupported
        """,
        "set ids and ingest.*.columns as they were when the table was made, or start another warehouse",
    ),
    _rule(
        SparkRefused,
        "a table was written by a newer Delta than this one can read",
        r"""
        DELTA_UNSUPPORTED_FEATURES|DELTA_FEATURES_REQUIRE|DeltaTableFeatureException
        DELTA_INVALID_PROTOCOL|InvalidProtocolVersionException
        DELTA_UNSUPPORTED_\w*VERSION
        """,
        "use the Delta version that wrote it",
    ),
    _rule(
        SparkRefused,
        "a version of a table can't be read any more",
        r"""
        DELTA_VERSION_NOT_FOUND|VersionNotFound
        DELTA_TRUNCATED_TRANSACTION_LOG|DELTA_LOG_|DELTA_NO_RECREATABLE_HISTORY
        DELTA_STATE_RECOVER|DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_CANNOT_RECONSTRUCT
        """,
        "restore the table's _delta_log, or run the night again under a new --run-key",
    ),
    _rule(
        SparkRefused,
        "a file or folder is not there",
        r"""
        FILE_NOT_EXIST|FileNotFoundException|NoSuchFileException|DELTA_FILE_NOT_FOUND
        PATH_NOT_FOUND|DELTA_PATH_DOES_NOT_EXIST
        DELTA_MISSING_DELTA_TABLE|DELTA_TABLE_NOT_FOUND
        """,
        "restore it; of a table, run the job that builds it under a new --run-key",
    ),
    _rule(
        SparkRefused,
        "a file can't be read, it is damaged or of another format",
        r"""
        FAILED_READ_FILE|CANNOT_READ_FILE_FOOTER
        not a Parquet file|ParquetDecodingException
        ChecksumException|DELTA_\w*CHECKSUM|ZipException
        MALFORMED_|JsonParseException|MalformedInputException
        """,
        "deliver it again or restore it; of a table, run the job that builds it under a new --run-key",
    ),
    _rule(
        SparkRefused,
        "a rule of the settings (eligible, where) meets a value that it can't take",
        r"""
        CAST_INVALID_INPUT|CAST_OVERFLOW|CANNOT_PARSE_|INVALID_PARAMETER_VALUE
        DIVIDE_BY_ZERO|REMAINDER_BY_ZERO
        ARITHMETIC_OVERFLOW|INTERVAL_\w+_OVERFLOW|DATETIME_OVERFLOW
        NUMERIC_VALUE_OUT_OF_RANGE|NUMERIC_OUT_OF_
        INVALID_ARRAY_INDEX|INVALID_INDEX
        """,
        "rewrite the rule so that it takes every value, with try_cast or try_divide for instance",
    ),
)
