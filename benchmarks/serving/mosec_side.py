"""mosec around the shared model: one process decodes, one computes dynamic batches."""

from __future__ import annotations

import os
import sys

from mosec import Server, ValidationError, Worker

MODEL, PORT = os.environ["MODEL"], os.environ["PORT"]
sys.argv = [
    sys.argv[0],
    "--port",
    PORT,
    "--address",
    "127.0.0.1",
    "--timeout",
    "60000",
    "--log-level",
    "error",
]


class Decode(Worker):
    def __init__(self) -> None:
        from shared import Work

        self.work = Work(MODEL)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def forward(self, data: bytes) -> object:
        from lookalike_extractor.errors import ImageError

        try:
            return self.work.decode(data)
        except ImageError as error:
            raise ValidationError(str(error)) from error


class Compute(Worker):
    def __init__(self) -> None:
        from shared import Work

        self.work = Work(MODEL)

    def forward(self, pixels: list) -> list:
        return [row.tobytes() for row in self.work.compute(pixels)]

    def serialize(self, data: bytes) -> bytes:
        return data


if __name__ == "__main__":
    server = Server()
    server.append_worker(Decode, num=1)
    server.append_worker(Compute, num=1, max_batch_size=32, max_wait_time=5, timeout=60)
    server.run()
