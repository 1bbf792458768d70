"""LIME (arXiv:2510.18239): low-rank link embeddings between a user's history and candidates.

Floor 1: PyTorch, with Arrow at the edge. Knows nothing of Spark, Delta, Airflow or storage layout.
"""
