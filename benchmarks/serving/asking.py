"""How clients ask each server: one image or a chunk of them in, the descriptors of the good ones out."""

from __future__ import annotations

import base64
import http.client
import json
import struct
import time
from collections.abc import Callable
from functools import cache
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from lookalike.v1 import embedding_pb2 as pb
from lookalike.v1 import embedding_pb2_grpc, types_pb2

Ask = Callable[[list[bytes]], Any]
"""Sends images and returns float32 [n, d], the descriptors of those that got one."""

NONE = np.empty((0, 0), np.float32)


def request(images: list[bytes]) -> pb.EmbedRequest:
    return pb.EmbedRequest(images=[types_pb2.Image(data=image) for image in images])


def descriptors(response: pb.EmbedResponse) -> Any:
    tensor = response.batches[0].descriptors
    return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)


def _channel(target: str) -> grpc.Channel:
    """A connection of its own, as clients in processes of their own have."""
    return grpc.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


def unary(target: str) -> Ask:
    stub = embedding_pb2_grpc.EmbeddingServiceStub(_channel(target))
    return lambda images: descriptors(stub.Embed(request(images)))


def stream(target: str) -> Ask:
    """Keeps one stream open, and one chunk in flight."""
    outbox: SimpleQueue[pb.EmbedStreamRequest] = SimpleQueue()
    stub = embedding_pb2_grpc.EmbeddingServiceStub(_channel(target))
    answers = stub.EmbedStream(iter(outbox.get, None))

    def ask(images: list[bytes]) -> Any:
        outbox.put(pb.EmbedStreamRequest(request=request(images)))
        return descriptors(next(answers).response)

    return ask


def litserve(target: str) -> Ask:
    ask = _posting(target, "/predict")

    def in_json(images: list[bytes]) -> Any:
        answer = ask(json.dumps({"image": base64.b64encode(images[0]).decode()}).encode())
        return NONE if answer is None else _row(base64.b64decode(json.loads(answer)["descriptor"]))

    return in_json


def mosec(target: str) -> Ask:
    ask = _posting(target, "/inference")

    def as_it_is(images: list[bytes]) -> Any:
        answer = ask(images[0])
        return NONE if answer is None else _row(answer)

    return as_it_is


def _posting(target: str, path: str) -> Callable[[bytes], bytes | None]:
    connection = http.client.HTTPConnection(target, timeout=30)

    def ask(body: bytes) -> bytes | None:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        return answer if response.status == 200 else None

    return ask


def kserve(target: str) -> Ask:
    """As MLServer and Triton are asked over gRPC: the Open Inference Protocol, with raw contents."""
    infer = _channel(target).unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=_kserve_messages()[1].FromString,
    )

    def ask(images: list[bytes]) -> Any:
        message = _kserve_messages()[0](model_name="embed")
        message.inputs.add(name="image", datatype="BYTES", shape=[1, 1])
        message.raw_input_contents.append(struct.pack("<I", len(images[0])) + images[0])
        try:
            return _row(infer(message, timeout=30).raw_output_contents[0])
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:  # not there yet
                time.sleep(0.2)
            return NONE

    return ask


def _row(data: bytes) -> Any:
    return np.frombuffer(data, "<f4")[None]


@cache
def _kserve_messages() -> tuple[Any, Any]:
    """ModelInferRequest and ModelInferResponse with the fields that are used here."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="kserve.proto", package="inference", syntax="proto3")

    def message(called: str, /, **fields: tuple[int, int, int]) -> None:
        kind = file.message_type.add(name=called)
        for key, (number, type_, label) in fields.items():
            kind.field.add(name=key, number=number, type=type_, label=label)

    text, data, integer = field.TYPE_STRING, field.TYPE_BYTES, field.TYPE_INT64
    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("Input", name=(1, text, one), datatype=(2, text, one), shape=(3, integer, many))
    message("Request", model_name=(1, text, one), raw_input_contents=(7, data, many))
    message("Response", raw_output_contents=(6, data, many))
    inputs = file.message_type[1].field.add(name="inputs", number=5, type=field.TYPE_MESSAGE, label=many)
    inputs.type_name = ".inference.Input"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return tuple(  # type: ignore[return-value]
        GetMessageClass(pool.FindMessageTypeByName(f"inference.{name}")) for name in ("Request", "Response")
    )
