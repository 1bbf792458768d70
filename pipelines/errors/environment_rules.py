"""Define rules for errors of an installation, a configuration or a permission, which an operator must fix."""

from __future__ import annotations

from typing import Final

from pipelines.errors.rules import DiskFull, SparkRefused, rule

ENVIRONMENT: Final = (
    rule(
        DiskFull,
        "no room on the disk of {host}",
        r"""
        No space left on device
        Disk quota exceeded
        not enough space on the disk
        DiskOutOfSpace
        """,
        "make room under its Spark local directory, or give executors another spark.local.dir; then run the "
        "job again, it continues with what is missing",
    ),
    rule(
        SparkRefused,
        "Delta's jars are not on Spark's class path",
        r"""
        ClassNotFoundException.*io\.delta|ClassNotFoundException.*sql\.delta
        DATA_SOURCE_NOT_FOUND.*delta
        catalog plugin class for catalog 'spark_catalog'|CATALOG_PLUGIN_CLASS
        """,
        "give them to spark-submit by --jars (docs/cluster.md), or run `make setup`",
    ),
    rule(
        SparkRefused,
        "no connector for this storage",
        r"""
        No FileSystem for scheme
        UnsupportedFileSystemException
        (?:ClassNotFoundException|NoClassDefFoundError).*(?:hadoop|s3a|azure|google|amazon|FileSystem)
        """,
        "put its jars on Spark's class path, of the version of Spark's Hadoop (s3a: hadoop-aws, abfs: "
        "hadoop-azure; spark-submit --packages or spark.jars), or correct the path in the settings",
    ),
    rule(
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
        "grant the right, or correct spark.secrets and the environment variables that it names",
    ),
    rule(
        SparkRefused,
        "the storage has no such bucket or container",
        r"""
        NoSuchBucket
        The specified container does not exist
        FilesystemNotFound
        UnknownStoreException
        """,
        "create it, or correct the path in the settings",
    ),
    rule(
        SparkRefused,
        "the certificate of a server is not accepted",
        r"""
        SSLHandshakeException
        SSLPeerUnverified
        CertificateException
        CertPathValidator
        """,
        "add its authority to the trust store of Java on every host, or correct the address",
    ),
    rule(
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
        "correct warehouse, drops, bundles or a path under export in the settings",
    ),
    rule(
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
    rule(
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
        "correct it under spark.conf in the settings, or where spark-submit gets it",
    ),
    rule(
        SparkRefused,
        "the driver was to receive more than spark.driver.maxResultSize",
        r"spark\.driver\.maxResultSize",
        "raise spark.driver.maxResultSize and spark.driver.memory",
    ),
    rule(
        SparkRefused,
        "a jar needs a newer Java than this one",
        r"UnsupportedClassVersionError",
        "run driver and executors with Java 17 or newer",
    ),
    rule(
        SparkRefused,
        "the executors' Python is not the driver's",
        r"""
        PYTHON_VERSION_MISMATCH|Python in worker has different version
        Cannot run program
        ModuleNotFoundError: No module named
        """,
        "give every host the same Python and this project (docs/cluster.md: PYSPARK_PYTHON, lime.zip)",
    ),
)
