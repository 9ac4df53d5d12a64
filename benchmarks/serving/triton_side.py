"""Triton, through PyTriton, around the shared model: raw bytes over its gRPC, dynamic batches."""

from __future__ import annotations

import os

import numpy as np
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from shared import MAX_BATCH, Work

work = Work(os.environ["MODEL"])


@batch
def embed(image: np.ndarray) -> dict[str, np.ndarray]:
    return {"descriptor": work.compute([work.decode(data) for data in image[:, 0]])}


if __name__ == "__main__":
    config = TritonConfig(
        grpc_address="127.0.0.1", grpc_port=int(os.environ["PORT"]), allow_http=True, allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="embed",
            infer_func=embed,
            inputs=[Tensor(name="image", dtype=bytes, shape=(1,))],
            outputs=[Tensor(name="descriptor", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(
                max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=5000)
            ),
        )
        triton.serve()
