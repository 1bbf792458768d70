"""LIME (arXiv:2510.18239): low-rank link embeddings between a user's history and candidates.

In: Arrow tables, NumPy arrays and a bundle's folder. Out: trained bundles, link states, factors and exact
lists. The package uses PyTorch and Arrow; it knows nothing of Spark, Delta, Airflow or how tables are stored.
"""
