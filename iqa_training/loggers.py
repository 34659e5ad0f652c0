"""Send the scalars of a run to loggers as they come: TensorBoard, CSV, Weights & Biases, MLflow.

A resumed run sends its history first, so that a log always covers the whole run: files are rewritten, and a service
gets a new run of the same name.
"""
import csv
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from iqa_results.curves import SCALARS_CSV
from iqa_runtime.errors import UserError, first_line

PROJECT = 'LinearityIQA'  # default project in Weights & Biases, which WANDB_PROJECT overrides
MOST_METRICS, MOST_PARAMETERS = 1000, 100  # in a request to MLflow


class Logger(Protocol):
    """The methods of a logger that a run calls."""

    def write(self, tag: str, value: float, step: int, seconds: float) -> None:
        """Log a scalar; `step` is an iteration or an epoch, `seconds` the time since 1970."""

    def flush(self) -> None:
        """Pass on all scalars logged so far."""

    def close(self) -> None:
        """Pass on all scalars logged so far, and end the log."""


class TensorBoard:
    """Event files in the folder, through torch's SummaryWriter."""

    def __init__(self, folder: Path, name: str, options: dict):
        from torch.utils.tensorboard import SummaryWriter  # slow to import
        self.writer = SummaryWriter(str(folder))
        self.flush, self.close = self.writer.flush, self.writer.close

    def write(self, tag: str, value: float, step: int, seconds: float) -> None:
        """Log a scalar (see Logger)."""
        self.writer.add_scalar(tag, value, step, seconds)


class Csv:
    """scalars.csv in the folder: a row of tag, step, value, time for each scalar, the value with all its digits."""

    def __init__(self, folder: Path, name: str, options: dict):
        self.file = open(folder / SCALARS_CSV, 'w', newline='', encoding='utf-8')  # noqa: SIM115 (as long as the run)
        self.flush, self.close = self.file.flush, self.file.close
        self.table = csv.writer(self.file)
        self.table.writerow(['tag', 'step', 'value', 'time'])

    def write(self, tag: str, value: float, step: int, seconds: float) -> None:
        """Log a scalar (see Logger)."""
        self.table.writerow([tag, step, repr(float(value)), f'{seconds:.3f}'])


class WandB:
    """A run of Weights & Biases, through ignite's WandBLogger; a chart's axis is `step`, an iteration or an epoch."""

    def __init__(self, folder: Path, name: str, options: dict):
        from ignite.handlers import WandBLogger
        self.logger = WandBLogger(project=os.environ.get('WANDB_PROJECT', PROJECT), name=name, dir=str(folder),
                                  config=options)
        self.logger.define_metric('*', step_metric='step')
        self.close = self.logger.close

    def write(self, tag: str, value: float, step: int, seconds: float) -> None:
        """Log a scalar (see Logger)."""
        self.logger.log({tag: value, 'step': step})

    def flush(self) -> None:
        """Do nothing: wandb's own process sends the scalars."""


class MLflow:
    """A run of MLflow at MLFLOW_TRACKING_URI, through ignite's MLflowLogger.

    Scalars are sent by `flush`, many in a request. If the server does not answer, the training continues and the next
    flush tries again.
    """

    def __init__(self, folder: Path, name: str, options: dict):
        from ignite.handlers import MLflowLogger
        self.logger, self.waiting = MLflowLogger(), []
        self.logger.set_tag('mlflow.runName', name)
        parameters = list(options.items())
        for first in range(0, len(parameters), MOST_PARAMETERS):
            self.logger.log_params(dict(parameters[first:first + MOST_PARAMETERS]))

    def write(self, tag: str, value: float, step: int, seconds: float) -> None:
        """Keep a scalar for the next flush (see Logger); a character that MLflow forbids in names becomes _."""
        allowed = re.sub(r'[^\w./: -]', '_', tag, flags=re.ASCII)
        self.waiting.append(self.logger.entities.Metric(allowed, value, int(seconds * 1000), step))

    def flush(self) -> None:
        """Send the pending scalars."""
        client, run = self.logger.MlflowClient(), self.logger.active_run.info.run_id
        try:
            while self.waiting:
                client.log_batch(run, self.waiting[:MOST_METRICS])
                del self.waiting[:MOST_METRICS]
        except Exception as error:  # mlflow and its HTTP libraries raise many kinds
            print(f'WARNING: --logger mlflow: {first_line(error)[:200]}: {len(self.waiting)} scalars are pending',
                  flush=True)

    def close(self) -> None:
        """Send the pending scalars, and end the run."""
        self.flush()
        self.logger.close()


@dataclass(frozen=True)
class LoggerRow:
    """A row of LOGGERS.

    Attributes:
        title: name on the screen.
        build: (folder of the run's log, name of the run, its options) -> logger.
        package: package that a service needs in addition to the requirements; None for a logger that writes files.
    """

    title: str
    build: Callable[[Path, str, dict], Logger]
    package: str | None = None


LOGGERS = {
    'tensorboard': LoggerRow('TensorBoard', TensorBoard),
    'csv': LoggerRow('CSV', Csv),
    'wandb': LoggerRow('Weights & Biases', WandB, 'wandb'),
    'mlflow': LoggerRow('MLflow', MLflow, 'mlflow'),
}


def check_loggers(names: Sequence[str]) -> None:
    """Raise UserError if a logger's package is not installed, or if a logger is named twice."""
    for name in names:
        package = LOGGERS[name].package
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f'--logger {name} needs the package {package}: pip install {package}')
        if names.count(name) > 1:
            raise UserError(f'--logger {name} is given twice')


def open_loggers(names: Sequence[str], folder: Path, name: str, options: dict) -> list[Logger]:
    """Return the loggers of a run; UserError if a service cannot be reached."""
    for old in (*folder.glob('events.out.tfevents.*'), folder / SCALARS_CSV):
        old.unlink(missing_ok=True)
    opened = []
    for logger in names:
        try:
            opened.append(LOGGERS[logger].build(folder, name, options))
        except Exception as error:  # each service raises kinds of its own
            if not LOGGERS[logger].package:
                raise
            raise UserError(f'--logger {logger}: {first_line(error)[:200]}') from error
    return opened
