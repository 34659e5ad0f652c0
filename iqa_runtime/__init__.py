"""Foundations of every command: errors, files, tables, options, checkpoints, processes."""
