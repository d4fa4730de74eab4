"""Processes that score slices of a population, by Ray: what a problem hands its candidates to with ``--workers``."""
