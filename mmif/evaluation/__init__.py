"""Evaluation: who fills which holes, how the results are measured, and the tables that come of it."""
