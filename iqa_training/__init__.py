"""The training run: logs, states, schedules, optimizers, names."""
