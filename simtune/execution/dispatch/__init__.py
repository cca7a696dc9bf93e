# SPDX-License-Identifier: Apache-2.0
"""Which job goes to which worker, and what happens when something fails: decisions only.

Example:
    >>> from simtune.execution.dispatch import Dispatcher
    >>> dispatcher = Dispatcher()
    >>> dispatcher.add(ticket=7, length=2e6, now=0.0)
    >>> dispatcher.joined("a", slots=2, host="rack1", now=0.0)
    >>> [chunk] = dispatcher.assign(now=0.0)
    >>> chunk.worker, chunk.tickets
    ('a', (7,))
    >>> dispatcher.replied(chunk.number, {7: 0.4}, transient=(), now=0.5).final
    [7]
"""

from simtune.execution.dispatch.dispatcher import Dispatcher
from simtune.execution.dispatch.values import Chunk, Policy, Progress, Settled, WorkerState

__all__ = ["Chunk", "Dispatcher", "Policy", "Progress", "Settled", "WorkerState"]
