# SPDX-License-Identifier: Apache-2.0
"""A task scheduler for MetaSchedule under which building one task and simulating another overlap."""

from __future__ import annotations

from typing import Any

from simtune import tvm_setup
from simtune.errors import ConfigurationError

ms = tvm_setup.load()

from tvm.ir.utils import derived_object  # noqa: E402


@derived_object
class OverlappingScheduler(ms.task_scheduler.PyTaskScheduler):  # type: ignore[misc, name-defined]
    """Gives trials to the task that gains most, while the batches of other tasks are simulated.

    ``ms.tune.tune_tasks(..., task_scheduler=simtune.OverlappingScheduler())``, the same for Relax.

    Under TVM's "gradient" scheduler the task that was just sent often wins again, since its gradient
    changes only when its batch is joined, and is waited for. This one estimates the gradient alike
    (Zheng et al., Ansor, OSDI 2020, section 6.2, as simplified in TVM's gradient_based.cc), but leaves
    out the tasks whose batches were sent last. What it picks depends on results only, not on how fast
    they come, so a seed gives the same search each time.

    Args:
        ahead: batches that are under way while the next one is searched for and built. More keep a
            larger cluster busy, and decide on older results.
        alpha, window: weight and length in rounds of the backward difference in the gradient.

    Raises:
        ConfigurationError: `ahead` or `window` is below 1.
    """

    def __init__(self, ahead: int = 1, alpha: float = 0.2, window: int = 3) -> None:
        super().__init__()
        if ahead < 1 or window < 1:
            raise ConfigurationError(f"ahead is {ahead} and window is {window}, but both must be at least 1")
        self.ahead, self.alpha, self.window = ahead, alpha, window
        self._restart(None)

    def _restart(self, first: Any) -> None:
        self._first = first
        self._fresh = 0
        #: Tasks in the order in which they were sent last.
        self._sent: list[int] = []
        #: Per task the best time after each of its batches, in seconds.
        self._best: dict[int, list[float]] = {}

    def next_task_id(self) -> int:
        """The task whose turn it is; called by MetaSchedule, which then searches, builds and sends."""
        tasks = self._outer().tasks_
        if self._first is None or not tasks[0].same_as(self._first):
            self._restart(tasks[0])
        if self._fresh < len(tasks):  # every task gets a first batch
            self._fresh += 1
            return self._send(self._fresh - 1)
        alive = [number for number, task in enumerate(tasks) if not task.is_terminated]
        latest = self._latest(tasks, min(self.ahead, len(alive) - 1))
        for number, task in enumerate(tasks):
            if number not in latest and task.runner_futures is not None:
                self._join(number)
        able = [number for number in alive if number not in latest]
        if not able:
            return -1
        return self._send(max(able, key=lambda n: (self._gradient(n, tasks[n]), -len(self._best.get(n, ())))))

    def _latest(self, tasks: Any, most: int) -> list[int]:
        """The tasks under way that were sent last, at most so many."""
        under_way = [n for n in reversed(self._sent) if tasks[n].runner_futures is not None]
        return under_way[: max(0, most)]

    def _send(self, number: int) -> int:
        if number in self._sent:
            self._sent.remove(number)
        self._sent.append(number)
        return number

    def _join(self, number: int) -> None:
        results = self._outer().join_running_task(number)
        seconds = [sum(map(float, one.run_secs)) / len(one.run_secs) for one in results if one.run_secs]
        history = self._best.setdefault(number, [])
        history.append(min([*seconds, *history[-1:]], default=float("inf")))

    def _gradient(self, number: int, task: Any) -> float:
        """Expected gain of one more batch; tasks of which no candidate has succeeded come last."""
        history = self._best.get(number, [])
        if not history or history[-1] == float("inf"):
            return -1.0
        best, rounds = history[-1], len(history)
        past = history[-1 - self.window] if rounds > self.window else best
        backward = (past - best) / self.window if past != float("inf") else 0.0
        return float(task.task_weight) * (self.alpha * backward + (1 - self.alpha) * best / rounds)
