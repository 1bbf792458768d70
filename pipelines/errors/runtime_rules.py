"""Define rules for errors that occur while a job runs: lost hosts, other writers, bad files and values."""

from __future__ import annotations

from typing import Final

from pipelines.errors.rules import SparkLost, SparkRefused, rule

RUNTIME: Final = (
    rule(
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
    rule(
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
    rule(
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
        "nothing unfinished was committed: run the job again once it can be reached, or correct its address",
    ),
    rule(
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
    rule(
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
    rule(
        SparkRefused,
        "a table was written by a newer Delta than this one can read",
        r"""
        DELTA_UNSUPPORTED_FEATURES|DELTA_FEATURES_REQUIRE|DeltaTableFeatureException
        DELTA_INVALID_PROTOCOL|InvalidProtocolVersionException
        DELTA_UNSUPPORTED_\w*VERSION
        """,
        "use the Delta version that wrote it",
    ),
    rule(
        SparkRefused,
        "a version of a table can't be read any more",
        r"""
        DELTA_VERSION_NOT_FOUND|VersionNotFound
        DELTA_TRUNCATED_TRANSACTION_LOG|DELTA_LOG_|DELTA_NO_RECREATABLE_HISTORY
        DELTA_STATE_RECOVER|DELTA_VERSIONS_NOT_CONTIGUOUS|DELTA_CANNOT_RECONSTRUCT
        """,
        "restore the table's _delta_log, or run the night again under a new --run-key",
    ),
    rule(
        SparkRefused,
        "a file or folder is missing",
        r"""
        FILE_NOT_EXIST|FileNotFoundException|NoSuchFileException|DELTA_FILE_NOT_FOUND
        PATH_NOT_FOUND|DELTA_PATH_DOES_NOT_EXIST
        DELTA_MISSING_DELTA_TABLE|DELTA_TABLE_NOT_FOUND
        """,
        "restore it; of a table, run the job that builds it under a new --run-key",
    ),
    rule(
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
    rule(
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
