"""One search for duplicates as a thing that lasts: what was asked, how far it is, and where its files are."""

from __future__ import annotations

import base64
import json
import secrets
import threading
import time
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from google.rpc import status_pb2

from lookalike_server.errors import JobNotDone

from .clusters import Recall
from .representative import Policy
from .search import Progress
from .shards import Folder, write_whole
from .stages import Asked

RECORD = "job.json"
_VERSION = 1
_ENOUGH = 0.02  # of the work, before it tells how long the rest will take


class State(Enum):
    """How far a job is. The last three are ends."""

    PENDING = "waiting for another job to end"
    RUNNING = "at work"
    SUCCEEDED = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Task:
    """What a caller asked for. where, reference: filters; "" means all, and none. precision: 0 means none."""

    collection: str
    asked: Asked
    where: str = ""
    reference: str = ""
    precision: float = 0.0

    def to_json(self) -> dict[str, Any]:
        asked = asdict(self.asked) | {"policy": self.asked.policy.value}
        return {**asdict(self), "asked": asked}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Task:
        asked = value["asked"]
        return cls(**{**value, "asked": Asked(**{**asked, "policy": Policy(asked["policy"])})})


@dataclass(frozen=True)
class Status:
    """A job at one moment. Replaced whole, so a reader in another thread never sees half of a change."""

    state: State = State.PENDING
    progress: Progress = field(default_factory=Progress)
    groups: int = 0
    split: int = 0
    """Items that a chain joined to a group, and that were kept out of it."""
    remaining: float | None = None
    """Seconds it will still take; None while that is unknown."""
    ended: float | None = None
    """POSIX seconds."""
    error: status_pb2.Status | None = None


class Stopped(Exception):
    """Raised in a job's work, by `Job.report`, when the job is to stop."""


@dataclass(eq=False)
class Job:
    """A task on its way, with its folder, its status and, in the end, its groups there."""

    folder: Path
    task: Task
    created: float
    status: Status = field(default_factory=Status)
    ended: Future[bool] = field(default_factory=Future)
    """Done when the job has ended, however; False when the server stops before."""
    stop: threading.Event = field(default_factory=threading.Event)
    """Set when the job is cancelled."""
    leave: threading.Event = field(default_factory=threading.Event)
    """Set when the job is to be left for the next process."""
    _begun: tuple[float, float] | None = None

    @classmethod
    def new(cls, parent: Path, task: Task) -> Job:
        """A job in a new folder. Raises OSError."""
        parent.mkdir(exist_ok=True)
        job = cls(parent / secrets.token_hex(8), task, time.time())
        job.folder.mkdir()
        job.save()
        return job

    @property
    def id(self) -> str:
        return self.folder.name

    @cached_property
    def shards(self) -> Folder:
        return Folder(self.folder, self.task.to_json())

    def begin(self) -> None:
        self.status = replace(self.status, state=State.RUNNING)

    def report(self, progress: Progress) -> None:
        """Tells of progress. Raises Stopped when the job has been cancelled or is to be left."""
        if self.stop.is_set() or self.leave.is_set():
            raise Stopped
        self.status = replace(self.status, progress=progress, remaining=self._remaining(progress.share))

    def _remaining(self, share: float) -> float | None:
        # Shards that were there already come at once; the clock starts with the first piece of work.
        now = time.monotonic()
        if self._begun is None:
            self._begun = now, share
        start, before = self._begun
        if share - before < _ENOUGH:
            return None
        return (now - start) * (1 - share) / (share - before)

    def end(self, state: State, error: status_pb2.Status | None) -> None:
        """Says how it ended, and keeps of its files what is still of use. Raises OSError."""
        succeeded = state is State.SUCCEEDED
        ended = replace(self.status, state=state, error=error, ended=time.time(), remaining=None)
        self.status = self._counted(ended) if succeeded else ended
        if succeeded:
            self.save()
            self.shards.keep_only("groups")
        else:
            self.shards.clear()
            self.save()

    def _counted(self, status: Status) -> Status:
        facts = [self.shards.facts("groups", number) for number in range(self.shards.count("groups"))]
        return replace(status, groups=sum(one["groups"] for one in facts), split=facts[0]["split"])

    def groups(self) -> Folder:
        """The shards of its groups; raises JobNotDone unless it has succeeded."""
        if self.status.state is not State.SUCCEEDED:
            raise JobNotDone(
                f"Job {self.id} has no result: it is {self.status.state.name.lower()}."
                " Watch it until it has succeeded.",
                job=self.id,
            )
        return self.shards

    def save(self) -> None:
        """Writes what the next process needs to know. Raises OSError."""
        status, progress = self.status, self.status.progress
        recall = progress.recall
        record = {
            "version": _VERSION,
            "created": self.created,
            "task": self.task.to_json(),
            "state": status.state.name,
            "ended": status.ended,
            "progress": [progress.share, progress.items, progress.pairs, progress.sequence],
            "recall": None if recall is None else [recall.found, recall.pairs],
            "groups": status.groups,
            "split": status.split,
            "error": base64.b64encode(status.error.SerializeToString()).decode() if status.error else "",
        }
        write_whole(self.folder / RECORD, json.dumps(record, indent=1).encode())


def read_job(folder: Path) -> Job:
    """A job as it was saved. Raises OSError, and ValueError, KeyError or TypeError for anything else."""
    record = json.loads((folder / RECORD).read_bytes())
    if record["version"] != _VERSION:
        raise ValueError(f"version {record['version']}")
    share, items, pairs, sequence = record["progress"]
    recall = None if record["recall"] is None else Recall(*record["recall"])
    error = status_pb2.Status.FromString(base64.b64decode(record["error"])) if record["error"] else None
    status = Status(
        State[record["state"]],
        Progress(share, items, pairs, sequence, recall),
        record["groups"],
        record.get("split", 0),  # jobs of before did not tell
        ended=record["ended"],
        error=error,
    )
    job = Job(folder, Task.from_json(record["task"]), record["created"], status)
    if status.ended is not None:
        job.ended.set_result(True)
    return job
