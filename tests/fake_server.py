"""A server made by hand: the real wire, hashes of the bytes as descriptors, faults on demand. No torch."""

# ruff: noqa: N802 - gRPC names the methods

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from lookalike.v1 import (
    calibration_pb2,
    calibration_pb2_grpc,
    collections_pb2,
    collections_pb2_grpc,
    duplicates_pb2,
    duplicates_pb2_grpc,
    embedding_pb2,
    embedding_pb2_grpc,
    items_pb2,
    items_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
    types_pb2,
)

DIMENSION = 8
SPACE = types_pb2.EmbeddingSpace(
    id="space-1", dimension=DIMENSION, metric=types_pb2.METRIC_COSINE, recipe="near_duplicate"
)


def status(code: grpc.StatusCode, reason: str, message: str) -> status_pb2.Status:
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="lookalike.v1", metadata={"field": "x"}))
    return status_pb2.Status(code=code.value[0], message=message, details=[detail])


def descriptor(data: bytes) -> np.ndarray:
    values = np.frombuffer(hashlib.sha256(data).digest()[:DIMENSION], np.uint8).astype("<f4") - 127.5
    return values / np.linalg.norm(values)


def tensor(array: np.ndarray) -> types_pb2.Tensor:
    return types_pb2.Tensor(dtype=types_pb2.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes())


class FakeServer(
    models_pb2_grpc.ModelServiceServicer,
    embedding_pb2_grpc.EmbeddingServiceServicer,
    collections_pb2_grpc.CollectionServiceServicer,
    items_pb2_grpc.ItemServiceServicer,
    search_pb2_grpc.SearchServiceServicer,
    duplicates_pb2_grpc.DuplicateServiceServicer,
    calibration_pb2_grpc.CalibrationServiceServicer,
):
    """All services in one. Bytes that begin with b"bad" are no image."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.limits = models_pb2.Limits(
            max_images_per_message=16,
            max_message_bytes=2**20,
            max_image_bytes=2**19,
            max_image_pixels=10**6,
            max_k=100,
        )
        self.collections: dict[str, dict[str, items_pb2.NewItem]] = {}
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, list[status_pb2.Status]] = {}
        self.chunk_sizes: list[int] = []
        self.delay = 0.0
        self.most_at_once = self._at_once = 0
        self.job_state = duplicates_pb2.JOB_STATE_SUCCEEDED
        self.cancelled_jobs: list[str] = []
        self.deleted_jobs: list[str] = []
        self._job = duplicates_pb2.DuplicateJob()
        self._server = grpc.server(
            futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 2**20)]
        )
        for module, service in (
            (models_pb2_grpc, "ModelService"),
            (embedding_pb2_grpc, "EmbeddingService"),
            (collections_pb2_grpc, "CollectionService"),
            (items_pb2_grpc, "ItemService"),
            (search_pb2_grpc, "SearchService"),
            (duplicates_pb2_grpc, "DuplicateService"),
            (calibration_pb2_grpc, "CalibrationService"),
        ):
            getattr(module, f"add_{service}Servicer_to_server")(self, self._server)
        port = self._server.add_insecure_port(address)
        self.target = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def fail(self, call: str, *faults: tuple[grpc.StatusCode, str, str]) -> None:
        """The next calls of this name end so, one after the other."""
        self.faults[call] = [status(*fault) for fault in faults]

    def refuse(self, call: str, seconds: float) -> None:
        """The next call of this name finds the queue full, and is told when to come back."""
        self.fail(call, (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "the queue is full"))
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(int(seconds * 1e9))
        self.faults[call][0].details.add().Pack(retry)

    def _enter(self, call: str, context: grpc.ServicerContext) -> None:
        self.calls[call] += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        time.sleep(self.delay)
        self._at_once -= 1
        if self.faults.get(call):
            self._abort(context, self.faults[call].pop(0))

    def _abort(self, context: grpc.ServicerContext, fault: status_pb2.Status) -> None:
        trailers: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", fault.SerializeToString())]
        retry = error_details_pb2.RetryInfo()
        if any(detail.Unpack(retry) for detail in fault.details):
            trailers.append(("grpc-retry-pushback-ms", str(retry.retry_delay.ToMilliseconds())))
        code = next(c for c in grpc.StatusCode if c.value[0] == fault.code)
        if code is not grpc.StatusCode.CANCELLED:  # a server that stops resets calls without a word
            context.set_trailing_metadata(tuple(trailers))
        context.abort(code, fault.message)

    def _collection(self, name: str, context: grpc.ServicerContext) -> dict[str, items_pb2.NewItem]:
        if name not in self.collections:
            message = f"there is no collection {name!r}. Did you mean 'shop'?"
            self._abort(context, status(grpc.StatusCode.NOT_FOUND, "COLLECTION_UNKNOWN", message))
        return self.collections[name]

    # models

    def GetServerInfo(self, request: Any, context: Any) -> models_pb2.GetServerInfoResponse:
        self._enter("GetServerInfo", context)
        return models_pb2.GetServerInfoResponse(version="9.9", device="fake", limits=self.limits)

    def ListRecipes(self, request: Any, context: Any) -> models_pb2.ListRecipesResponse:
        tap = models_pb2.Tap(node="body.act", pooling="gem(p=3)")
        recipe = models_pb2.Recipe(
            name="near_duplicate",
            backbone="tiny",
            taps=[tap],
            input_height=32,
            input_width=32,
            space=SPACE,
            duplicate_threshold=0.9,
        )
        return models_pb2.ListRecipesResponse(recipes=[recipe])

    def ListBackbones(self, request: Any, context: Any) -> models_pb2.ListBackbonesResponse:
        tiny = models_pb2.Backbone(name="tiny", weights="packaged", loaded=True)
        return models_pb2.ListBackbonesResponse(backbones=[tiny])

    def ListNodes(self, request: Any, context: Any) -> models_pb2.ListNodesResponse:
        if request.backbone != "tiny":
            message = f"there is no backbone {request.backbone!r}. Did you mean 'tiny'?"
            self._abort(context, status(grpc.StatusCode.NOT_FOUND, "BACKBONE_UNKNOWN", message))
        node = models_pb2.Node(
            name="body.act",
            operation="ReLU",
            shape=[8, 4, 4],
            stride=8,
            parameters=1_000,
            flops=2_000_000,
            cumulative_flops=3_000_000,
            dtype="float32",
        )
        return models_pb2.ListNodesResponse(nodes=[node])

    # embedding

    def Embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        self._enter("Embed", context)
        return self._embed(request, context)

    def EmbedStream(self, requests: Any, context: Any) -> Iterator[embedding_pb2.EmbedStreamResponse]:
        """Answers the first chunk at once, then of every two chunks the later one first."""
        self.calls["EmbedStream"] += 1
        waiting: list[embedding_pb2.EmbedStreamResponse] = []
        for number, request in enumerate(requests):
            self._enter("chunk", context)
            answer = self._embed(request.request, context)
            waiting.append(embedding_pb2.EmbedStreamResponse(chunk_id=request.chunk_id, response=answer))
            if number == 0 or len(waiting) == 2:
                yield from reversed(waiting)
                waiting.clear()
        yield from waiting

    def _embed(self, request: embedding_pb2.EmbedRequest, context: Any) -> embedding_pb2.EmbedResponse:
        self.chunk_sizes.append(len(request.images))
        if request.recipes not in ([], ["near_duplicate"]):
            message = f"there is no recipe {request.recipes[0]!r}. Did you mean 'near_duplicate'?"
            self._abort(context, status(grpc.StatusCode.NOT_FOUND, "RECIPE_UNKNOWN", message))
        answer, rows = embedding_pb2.EmbedResponse(), []
        for image in request.images:
            data = image.data or image.pixels.data
            result = answer.results.add(
                row=len(rows), width=4, height=3, digest=hashlib.sha256(data).digest()
            )
            if data.startswith(b"bad"):
                result.status.CopyFrom(unreadable())
            else:
                rows.append(descriptor(data))
        stacked = np.stack(rows) if rows else np.empty((0, DIMENSION), "<f4")
        answer.batches.add(recipe="near_duplicate", space=SPACE, descriptors=tensor(stacked))
        return answer

    # collections

    def CreateCollection(self, request: Any, context: Any) -> collections_pb2.CreateCollectionResponse:
        self._enter("CreateCollection", context)
        if request.name in self.collections:
            message = f"there is a collection {request.name!r} already"
            self._abort(context, status(grpc.StatusCode.ALREADY_EXISTS, "COLLECTION_EXISTS", message))
        self.collections[request.name] = {}
        return collections_pb2.CreateCollectionResponse(collection=self._describe(request.name))

    def GetCollection(self, request: Any, context: Any) -> collections_pb2.GetCollectionResponse:
        self._collection(request.name, context)
        return collections_pb2.GetCollectionResponse(collection=self._describe(request.name))

    def ListCollections(self, request: Any, context: Any) -> collections_pb2.ListCollectionsResponse:
        described = [self._describe(name) for name in sorted(self.collections)]
        return collections_pb2.ListCollectionsResponse(collections=described)

    def DeleteCollection(self, request: Any, context: Any) -> collections_pb2.DeleteCollectionResponse:
        self._collection(request.name, context)
        del self.collections[request.name]
        return collections_pb2.DeleteCollectionResponse()

    def _describe(self, name: str) -> collections_pb2.Collection:
        return collections_pb2.Collection(
            name=name,
            recipe="near_duplicate",
            space=SPACE,
            item_count=len(self.collections[name]),
            sequence=len(self.collections[name]),
        )

    # items

    def UpsertItemsStream(self, requests: Any, context: Any) -> Iterator[items_pb2.UpsertItemsStreamResponse]:
        self.calls["UpsertItemsStream"] += 1
        for request in requests:
            items = self._collection(request.request.collection, context)
            self.chunk_sizes.append(len(request.request.items))
            good = [item for item in request.request.items if not item.image.data.startswith(b"bad")]
            items.update({item.id: item for item in good})
            self._enter("chunk", context)
            statuses = [
                status_pb2.Status() if item in good else unreadable() for item in request.request.items
            ]
            written = items_pb2.UpsertItemsResponse(sequence=len(items), inserted=len(good))
            yield items_pb2.UpsertItemsStreamResponse(
                chunk_id=request.chunk_id, statuses=statuses, response=written
            )

    def GetItems(self, request: Any, context: Any) -> items_pb2.GetItemsResponse:
        items = self._collection(request.collection, context)
        missing = [one for one in request.ids if one not in items]
        if missing and not request.allow_missing:
            message = f"there is no item {missing[0]!r}"
            self._abort(context, status(grpc.StatusCode.NOT_FOUND, "ITEM_UNKNOWN", message))
        found = [self._item(items[one], request.include_descriptors) for one in request.ids if one in items]
        return items_pb2.GetItemsResponse(items=found)

    def ListItems(self, request: Any, context: Any) -> items_pb2.ListItemsResponse:
        """Pages of two."""
        items = list(self._collection(request.collection, context).values())
        if request.where.startswith("exists("):
            key = request.where[len("exists(") : -1]
            items = [item for item in items if key in json.loads(item.attributes_json)]
        start = int(request.page_token or 0)
        page = [self._item(item, request.include_descriptors) for item in items[start : start + 2]]
        token = str(start + 2) if start + 2 < len(items) else ""
        return items_pb2.ListItemsResponse(items=page, next_page_token=token)

    def DeleteItems(self, request: Any, context: Any) -> items_pb2.DeleteItemsResponse:
        items = self._collection(request.collection, context)
        deleted = [items.pop(one) for one in set(request.ids) & set(items)]
        return items_pb2.DeleteItemsResponse(deleted=len(deleted), missing=len(request.ids) - len(deleted))

    def _item(self, new: items_pb2.NewItem, with_descriptor: bool) -> items_pb2.Item:
        vector = tensor(self._vector(new)) if with_descriptor else None
        return items_pb2.Item(
            id=new.id, attributes_json=new.attributes_json or "{}", sequence=1, descriptor=vector
        )

    def _vector(self, new: Any) -> np.ndarray:
        if new.HasField("descriptor"):
            return np.frombuffer(new.descriptor.data, "<f4")
        return descriptor(new.image.data or new.image.pixels.data)

    # search

    def Search(self, request: Any, context: Any) -> search_pb2.SearchResponse:
        self._enter("Search", context)
        items = self._collection(request.collection, context)
        if request.where.startswith("!"):
            message = "filter: expected an attribute at column 1"
            self._abort(context, status(grpc.StatusCode.INVALID_ARGUMENT, "FILTER_INVALID", message))
        return search_pb2.SearchResponse(results=[self._answer(q, request, items) for q in request.queries])

    def _answer(self, query: Any, request: Any, items: dict[str, Any]) -> search_pb2.QueryResult:
        if query.image.data.startswith(b"bad"):
            return search_pb2.QueryResult(status=unreadable())
        if query.item_id and query.item_id not in items:
            message = f"there is no item {query.item_id!r}"
            return search_pb2.QueryResult(status=status(grpc.StatusCode.NOT_FOUND, "ITEM_UNKNOWN", message))
        vector = self._vector(items[query.item_id] if query.item_id else query)
        scored = [
            search_pb2.Hit(
                id=key, score=float(self._vector(item) @ vector), attributes_json=item.attributes_json
            )
            for key, item in items.items()
            if key != query.item_id
        ]
        if request.HasField("min_score"):
            scored = [hit for hit in scored if hit.score >= request.min_score]
        return search_pb2.QueryResult(hits=sorted(scored, key=lambda hit: -hit.score)[: request.k])

    def GetCalibration(self, request: Any, context: Any) -> calibration_pb2.GetCalibrationResponse:
        self._collection(request.collection, context)
        known = calibration_pb2.Threshold(
            precision=0.95,
            min_score=0.7,
            reached=0.96,
            reached_low=0.951,
            reached_high=0.97,
            recall=0.8,
            current_score=0.7,
        )
        return calibration_pb2.GetCalibrationResponse(
            calibration=calibration_pb2.Calibration(collection=request.collection, thresholds=[known])
        )

    # duplicates: identical bytes are duplicates

    def StartDuplicateJob(self, request: Any, context: Any) -> duplicates_pb2.StartDuplicateJobResponse:
        self._collection(request.collection, context)
        self._enter("StartDuplicateJob", context)
        self.job_request = request
        self._job = duplicates_pb2.DuplicateJob(
            id="job-1",
            collection=request.collection,
            threshold=request.threshold if request.HasField("threshold") else 0.9,
            policy=request.policy,
            policy_attribute=request.policy_attribute,
            since_sequence=request.since_sequence,
            precision=request.precision,
            reference=request.reference,
            state=duplicates_pb2.JOB_STATE_RUNNING,
            items_total=len(self.collections[request.collection]),
            split_count=2,
        )
        return duplicates_pb2.StartDuplicateJobResponse(job=self._job)

    def leave_job(self) -> None:
        """The last job is as it was when its client was killed."""
        self._job.state = duplicates_pb2.JOB_STATE_RUNNING

    def WatchDuplicateJob(
        self, request: Any, context: Any
    ) -> Iterator[duplicates_pb2.WatchDuplicateJobResponse]:
        yield duplicates_pb2.WatchDuplicateJobResponse(job=self._job)
        self._enter("watch", context)
        self._job.state = self.job_state
        self._job.items_done = self._job.items_total
        if self.job_state == duplicates_pb2.JOB_STATE_FAILED:
            self._job.error.CopyFrom(
                status(grpc.StatusCode.DATA_LOSS, "STORE_DAMAGED", "the store is damaged")
            )
        yield duplicates_pb2.WatchDuplicateJobResponse(job=self._job)

    def GetDuplicateJob(self, request: Any, context: Any) -> duplicates_pb2.GetDuplicateJobResponse:
        return duplicates_pb2.GetDuplicateJobResponse(job=self._job)

    def ListDuplicateJobs(self, request: Any, context: Any) -> duplicates_pb2.ListDuplicateJobsResponse:
        jobs = [self._job] if self._job.id and request.collection in ("", self._job.collection) else []
        return duplicates_pb2.ListDuplicateJobsResponse(jobs=jobs)

    def DeleteDuplicateJob(self, request: Any, context: Any) -> duplicates_pb2.DeleteDuplicateJobResponse:
        self.deleted_jobs.append(request.job_id)
        return duplicates_pb2.DeleteDuplicateJobResponse()

    def CheckDuplicate(self, request: Any, context: Any) -> duplicates_pb2.CheckDuplicateResponse:
        matches = self._copies(self._collection(request.collection, context), request.item)
        return duplicates_pb2.CheckDuplicateResponse(matches=matches, threshold=0.9, sequence=7)

    def AddUnlessDuplicate(self, request: Any, context: Any) -> duplicates_pb2.AddUnlessDuplicateResponse:
        items = self._collection(request.collection, context)
        matches = self._copies(items, request.item)
        if not matches:
            items[request.item.id] = request.item
        return duplicates_pb2.AddUnlessDuplicateResponse(added=not matches, matches=matches, threshold=0.9)

    def _copies(
        self, items: dict[str, items_pb2.NewItem], item: items_pb2.NewItem
    ) -> list[duplicates_pb2.DuplicateMatch]:
        return [
            duplicates_pb2.DuplicateMatch(
                item_id=other.id, score=1, exact=True, attributes_json=other.attributes_json
            )
            for other in items.values()
            if (other.image, other.descriptor) == (item.image, item.descriptor)
        ]

    def CancelDuplicateJob(self, request: Any, context: Any) -> duplicates_pb2.CancelDuplicateJobResponse:
        self.cancelled_jobs.append(request.job_id)
        return duplicates_pb2.CancelDuplicateJobResponse(job=self._job)

    def ListDuplicateGroups(self, request: Any, context: Any) -> duplicates_pb2.ListDuplicateGroupsResponse:
        """Pages of one."""
        by_bytes: dict[bytes, list[items_pb2.NewItem]] = {}
        for item in self.collections[self._job.collection].values():
            by_bytes.setdefault(item.image.data, []).append(item)
        groups = [self._group(members) for members in by_bytes.values() if len(members) > 1]
        start = int(request.page_token or 0)
        token = str(start + 1) if start + 1 < len(groups) else ""
        page = groups[start : start + 1]
        return duplicates_pb2.ListDuplicateGroupsResponse(groups=page, next_page_token=token)

    def _group(self, items: list[items_pb2.NewItem]) -> duplicates_pb2.DuplicateGroup:
        members = [
            duplicates_pb2.DuplicateMember(
                item_id=item.id, score=1, exact=True, attributes_json=item.attributes_json
            )
            for item in sorted(items, key=lambda item: item.id)
        ]
        return duplicates_pb2.DuplicateGroup(representative_id=members[0].item_id, members=members)


def unreadable() -> status_pb2.Status:
    return status(grpc.StatusCode.INVALID_ARGUMENT, "IMAGE_TRUNCATED", "x: the file ends too early")
