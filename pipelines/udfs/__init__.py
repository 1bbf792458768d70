"""UDF bodies: plain functions over iterators of Arrow batches, each runs without Spark."""
