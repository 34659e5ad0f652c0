"""Foundations of every command: errors, files, tables, options, checkpoints, processes."""
from iqa_runtime.packages import check_packages

check_packages()
