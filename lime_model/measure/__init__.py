"""Measures: of lists and predicted labels, of the drift between nights, and the exactness certificate.

In: published lists, scores and labels, or one user's raw events. Out: numbers (`metrics`, `drift`), or a
finding for one user (`certificate`).
"""
