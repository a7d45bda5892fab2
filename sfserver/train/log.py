"""What a stage writes down as it learns: a line of JSON now and then, and the same for TensorBoard where that is."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from types import TracebackType

from attrs import asdict

from .loop import Report

METRICS_NAME = "metrics.jsonl"
BOARD_FOLDER = "board"
EVERY_STEPS = 25


class Log:
    """Of one stage, in its folder. A context that closes what is open."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._board = None
        if importlib.util.find_spec("tensorboard"):  # of the extra `train`; without it, the JSON is all there is
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / BOARD_FOLDER))
        self.smooth_loss = math.nan
        """Averaged over the last steps."""

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._board:
            self._board.close()

    def add(self, report: Report) -> None:
        """Take note of a step, and write down each of EVERY_STEPS."""
        first = math.isnan(self.smooth_loss)
        self.smooth_loss = report.loss if first else 0.98 * self.smooth_loss + 0.02 * report.loss
        if (report.step + 1) % EVERY_STEPS:
            return
        line = asdict(report) | {"smooth_loss": self.smooth_loss}
        line = {name: value for name, value in line.items() if not math.isnan(value)}
        with (self._folder / METRICS_NAME).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self._board:
            for name, value in line.items():
                self._board.add_scalar(name, value, report.step)
