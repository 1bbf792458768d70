"""The demo sends The Complete Journey through the real DAG and makes a page with the results."""
