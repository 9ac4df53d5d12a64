"""Work that outlives the call that asked for it: one job at a time, in a thread of its own, in order of
arrival.
"""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Generic, TypeVar

from google.rpc import status_pb2

from lookalike_server.errors import Draining, JobNotDone, JobUnknown, QueueFull
from lookalike_server.wire import status_of

Task = TypeVar("Task")
Result = TypeVar("Result")


class State(Enum):
    """How far a job is. The last three are ends."""

    PENDING = "waiting for another job to end"
    RUNNING = "at work"
    SUCCEEDED = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Status:
    """A job at one moment. Replaced whole, so a reader in another thread never sees half of a change."""

    state: State = State.PENDING
    items_done: int = 0
    items_total: int = 0
    pairs_found: int = 0
    sequence: int = 0
    sampled_pairs: int = 0
    sampled_pairs_found: int = 0
    error: status_pb2.Status | None = None


class Stopped(Exception):
    """Raised in a job's work, by `Job.report`, when the job has been cancelled."""


@dataclass(eq=False)
class Job(Generic[Task, Result]):
    """A task on its way through the board, with its status and, in the end, its result."""

    task: Task
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    status: Status = Status()
    ended: Future[None] = field(default_factory=Future)  # done when the job has ended, however
    _result: Result | None = None
    _stop: threading.Event = field(default_factory=threading.Event)

    def report(self, **changes: int) -> None:
        """Tells of progress (fields of Status). Raises Stopped when the job has been cancelled."""
        if self._stop.is_set():
            raise Stopped
        self.status = replace(self.status, **changes)  # type: ignore[arg-type]

    def result(self) -> Result:
        """What the job found; raises JobNotDone unless it has succeeded."""
        if self.status.state is not State.SUCCEEDED or self._result is None:
            raise JobNotDone(
                f"Job {self.id} has no result: it is {self.status.state.name.lower()}."
                " Watch it until it has succeeded.",
                job=self.id,
            )
        return self._result

    def end(
        self, state: State, *, result: Result | None = None, error: status_pb2.Status | None = None
    ) -> None:
        self._result = result
        self.status = replace(self.status, state=state, error=error)
        self.ended.set_result(None)


class JobBoard(Generic[Task, Result]):
    """Runs jobs one at a time. Thread-safe; `close` ends it.

    work(job) does a job and returns its result; it calls `job.report` often, which is where a cancelled job
    stops. At most `most_waiting` jobs wait, and of the ended ones the last `most_kept` are remembered.
    """

    def __init__(
        self, work: Callable[[Job[Task, Result]], Result], *, most_waiting: int = 32, most_kept: int = 100
    ) -> None:
        self._work = work
        self._most_waiting = most_waiting
        self._most_kept = most_kept
        self._jobs: dict[str, Job[Task, Result]] = {}
        self._line: queue.SimpleQueue[Job[Task, Result] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="duplicate-jobs", daemon=True)
        self._thread.start()

    def start(self, task: Task) -> Job[Task, Result]:
        """Puts a job in the line. Raises QueueFull when too many wait, Draining once the board is closed."""
        with self._lock:
            if self._closed:
                raise Draining("The server is stopping; start the job again once it is back.")
            waiting = sum(job.status.state is State.PENDING for job in self._jobs.values())
            if waiting >= self._most_waiting:
                raise QueueFull(
                    f"{waiting} duplicate jobs wait already; start this one when some of them have ended,"
                    " or cancel one.",
                    retry_after_ms="5000",
                )
            self._forget_old()
            job: Job[Task, Result] = Job(task)
            self._jobs[job.id] = job
        self._line.put(job)
        return job

    def get(self, job_id: str) -> Job[Task, Result]:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise JobUnknown(
                f"There is no job {job_id!r}. Jobs end with the server's process, and the last"
                f" {self._most_kept} that ended are kept.",
                job=job_id,
            )
        return job

    def cancel(self, job: Job[Task, Result]) -> None:
        """Ends a waiting job now and a running one at its next report; one that has ended stays as it is."""
        with self._lock:
            job._stop.set()
            if job.status.state is State.PENDING:
                job.end(State.CANCELLED)

    def close(self) -> None:
        """Cancels every job and waits for the running one to stop. Returns within a moment; may be called
        twice.
        """
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            self.cancel(job)
        self._line.put(None)
        self._thread.join()

    def _run(self) -> None:
        for job in iter(self._line.get, None):
            with self._lock:
                if job.status.state is not State.PENDING:
                    continue  # cancelled while it waited
                job.status = replace(job.status, state=State.RUNNING)
            self._do(job)

    def _do(self, job: Job[Task, Result]) -> None:
        try:
            result = self._work(job)
        except Stopped:
            job.end(State.CANCELLED)
        except Exception as error:  # a job's failure is its own; the next one must run
            job.end(State.FAILED, error=status_of(error))
        else:
            job.end(State.SUCCEEDED, result=result)

    def _forget_old(self) -> None:
        ended = [job.id for job in self._jobs.values() if job.ended.done()]
        for job_id in ended[: -self._most_kept]:
            del self._jobs[job_id]
