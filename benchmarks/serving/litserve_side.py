"""LitServe around the shared model: images in base64, as its guide sends them, dynamic batches."""

from __future__ import annotations

import base64
import os

import litserve
from shared import MAX_BATCH, Work


class Embed(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.work = Work(os.environ["MODEL"])

    def decode_request(self, request: dict) -> object:
        return self.work.decode(base64.b64decode(request["image"]))

    def batch(self, inputs: list) -> list:
        return inputs

    def predict(self, pixels: list) -> object:
        return self.work.compute(pixels)

    def unbatch(self, output: object) -> object:
        return list(output)

    def encode_response(self, output: object) -> dict:
        return {"descriptor": base64.b64encode(output.tobytes()).decode()}


if __name__ == "__main__":
    api = Embed(max_batch_size=MAX_BATCH, batch_timeout=0.005)
    litserve.LitServer(api, accelerator="cpu", timeout=60).run(
        port=int(os.environ["PORT"]), host="127.0.0.1", log_level="error", generate_client_file=False
    )
