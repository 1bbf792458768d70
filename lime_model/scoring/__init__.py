"""Scoring: fold a model into factors, filter candidates fast, publish canonical scores."""
