"""Searches that outlive the call that asked for them, and the server's process: one at a time, in a thread of
their own, in the order in which they were started.

<data>/<collection>/jobs/ID/job.json    what was asked, and how far it is
<data>/<collection>/jobs/ID/...         its shards (shards.py); once it has succeeded, its groups alone
"""

from __future__ import annotations

import errno
import logging
import queue
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lookalike_extractor.errors import LookalikeError

from lookalike_server.errors import (
    CollectionUnknown,
    DiskFull,
    Draining,
    JobNotDone,
    JobUnknown,
    QueueFull,
    StoreUnusable,
)
from lookalike_server.wire import status_of

from .job import RECORD, Job, State, Stopped, Task, read_job

_log = logging.getLogger(__name__)


class JobBoard:
    """Runs jobs. Thread-safe; `close` ends it. Jobs that an earlier process left are taken up again.

    work(job) does a job; it calls `job.report` often, which is where a job stops that was cancelled. At most
    `most_waiting` jobs wait, and of the ended ones the last `most_kept` are kept.

    Args:
        root: the data directory.
    """

    def __init__(
        self, root: Path, work: Callable[[Job], None], *, most_waiting: int = 32, most_kept: int = 100
    ) -> None:
        self._root = root
        self._work = work
        self._most_waiting = most_waiting
        self._most_kept = most_kept
        self._line: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._jobs = {job.id: job for job in _found(root)}
        for job in self._jobs.values():
            if not job.ended.done():
                self._line.put(job)
        self._thread = threading.Thread(target=self._run, name="duplicate-jobs", daemon=True)
        self._thread.start()

    def start(self, task: Task) -> Job:
        """Puts a job in the line; it is on disk when this returns.

        Raises QueueFull when too many wait, Draining once the board is closed, DiskFull.
        """
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
            with faults(task.collection):
                job = Job.new(self._root / task.collection / "jobs", task)
            self._jobs[job.id] = job
        self._line.put(job)
        return job

    def get(self, job_id: str) -> Job:
        with self._lock:
            self._forget_gone()
            job = self._jobs.get(job_id)
        if job is None:
            raise JobUnknown(
                f"There is no job {job_id!r}. The last {self._most_kept} that ended are kept, as long as"
                " their collections are.",
                job=job_id,
            )
        return job

    def list(self) -> list[Job]:
        """The jobs in the order in which they were started."""
        with self._lock:
            self._forget_gone()
            return list(self._jobs.values())

    def cancel(self, job: Job) -> None:
        """Ends a waiting job now and a running one at its next report; one that has ended stays as it is."""
        with self._lock:
            job.stop.set()
            if job.status.state is State.PENDING:
                _end(job, State.CANCELLED)

    def delete(self, job: Job) -> None:
        """Deletes a job that has ended. Raises JobNotDone."""
        with self._lock:
            if not job.ended.done():
                raise JobNotDone(
                    f"Job {job.id} is {job.status.state.name.lower()}; cancel it before it is deleted.",
                    job=job.id,
                )
            self._forget(job)

    def close(self) -> None:
        """Stops the running job where it is: the next process goes on from there. Returns within a moment;
        may be called twice.
        """
        with self._lock:
            self._closed = True
            jobs = list(self._jobs.values())
        for job in jobs:
            job.leave.set()
        self._line.put(None)
        self._thread.join()
        for job in jobs:
            if not job.ended.done():
                job.ended.set_result(False)

    def _run(self) -> None:
        for job in iter(self._line.get, None):
            with self._lock:
                if self._closed or job.ended.done():
                    continue  # cancelled while it waited
                job.begin()
            self._do(job)

    def _do(self, job: Job) -> None:
        try:
            with faults(job.task.collection):
                self._work(job)
        except (Stopped, Draining):  # the collection may be closed a moment before the board
            if job.stop.is_set():
                _end(job, State.CANCELLED)
        except Exception as error:  # a job's failure is its own; the next one must run
            _end(job, State.FAILED, error)
        else:
            _end(job, State.SUCCEEDED)

    def _forget_old(self) -> None:
        ended = [job for job in self._jobs.values() if job.ended.done()]
        for job in ended[: -self._most_kept]:
            self._forget(job)

    def _forget_gone(self) -> None:
        """Jobs go with their collections."""
        for job in list(self._jobs.values()):
            if job.ended.done() and not job.folder.is_dir():
                del self._jobs[job.id]

    def _forget(self, job: Job) -> None:
        shutil.rmtree(job.folder, ignore_errors=True)
        self._jobs.pop(job.id, None)


def _end(job: Job, state: State, error: Exception | None = None) -> None:
    """Ends a job. One whose end cannot be written, as on a full disk, runs again in the next process."""
    try:
        job.end(state, None if error is None else status_of(error))
    except OSError:
        _log.warning("how job %s ended could not be written", job.id, exc_info=True)
    finally:
        job.ended.set_result(True)


def _found(root: Path) -> Iterator[Job]:
    jobs = []
    for folder in root.glob("[!.]*/jobs/*"):
        if (folder / RECORD).is_file():
            try:
                job = read_job(folder)
                if job.status.state is State.SUCCEEDED:
                    job.shards.keep_only("groups")
                jobs.append(job)
            except (OSError, ValueError, KeyError, TypeError):
                _log.warning("%s is left out: it is no job that this version can read", folder, exc_info=True)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # a process ended before the job was there
    yield from sorted(jobs, key=lambda job: (job.created, job.id))


@contextmanager
def faults(collection: str) -> Iterator[None]:
    """Turns what the system says about a job's files into errors that a caller can be told."""
    try:
        yield
    except OSError as error:
        raise _told(error, collection) from error


def _told(error: OSError, collection: str) -> LookalikeError:
    if isinstance(error, FileNotFoundError):
        return CollectionUnknown(f"Collection {collection!r} was deleted.", collection=collection)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The disk is full; a job needs about the room that its collection takes. Free some.")
    return StoreUnusable(f"The job's files cannot be used: {error.strerror or error}.")
