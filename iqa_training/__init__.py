"""The training run: logs, curves and their figures, states, schedules, optimizers, names."""
