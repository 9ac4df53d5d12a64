"""MLServer around the shared model: raw bytes over its gRPC, adaptive batching, one worker process."""

from __future__ import annotations

import asyncio
import os

import numpy as np
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import install_uvloop_event_loop
from shared import MAX_BATCH, Work


class Embed(MLModel):
    async def load(self) -> bool:
        self.work = Work(os.environ["MODEL"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = self.work.compute([self.work.decode(data) for data in payload.inputs[0].data.root])
        output = NumpyCodec.encode_output("descriptor", np.asarray(rows))
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    settings = Settings(
        host="127.0.0.1", http_port=0, grpc_port=int(os.environ["PORT"]), metrics_endpoint=None, debug=False
    )
    model = ModelSettings(
        name="embed", implementation="mlserver_side.Embed", max_batch_size=MAX_BATCH, max_batch_time=0.005
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(main())
