"""Metrics, the question-answering task, the comparison of a base model with its adapter."""
