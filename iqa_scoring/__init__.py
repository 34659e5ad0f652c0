"""Scores of images: the scorer, inputs, tables, reports, maps, calibration, statistics, export."""
