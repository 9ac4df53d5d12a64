"""The server's branches of the error tree whose root is lookalike_extractor.errors.LookalikeError.

Errors are raised in any room, named here or there, and turned into wire in one place (interceptors.py).

    LookalikeError
    ├── (images, graphs, backbones, recipes: lookalike_extractor.errors)
    │   └── DecodeStalled          an image that a decoder hung on
    ├── ArgumentInvalid            a field of a request is wrong; metadata "field" is its path
    │   ├── MessageTooLarge        more images, items or queries than one message may hold
    │   ├── DescriptorInvalid      wrong length, NaN, zero
    │   ├── AttributesInvalid      not a JSON object, or too large
    │   ├── FilterInvalid
    │   └── PageTokenInvalid
    ├── RecipeUnknown, CollectionUnknown, AliasUnknown, ItemUnknown, JobUnknown
    ├── CollectionExists
    ├── CollectionAliased          a name that is an alias, or has one, cannot be deleted
    ├── SpaceMismatch              a descriptor or recipe of another embedding space
    ├── JobNotDone
    ├── NoBackground               scores cannot be normalised without one
    ├── NotCalibrated              no score of a collection is known to mean that precision
    ├── QueueFull                  try again in a moment
    ├── DeadlineUnreachable        the caller's deadline passed, or cannot be met
    ├── DeviceStalled              the device answers nothing at the moment
    ├── Draining                   the server is stopping
    ├── DiskFull
    ├── StoreDamaged               a collection's files are not what was written
    ├── StoreTooNew                written by a newer version of this program
    ├── StoreUnusable              the files cannot be opened or written: their rights
    ├── TokenMissing, TokenInvalid
    ├── ScopeMissing               the token may not make this call
    ├── TokenLimit                 the token's share is used up; try again in a moment
    ├── DataDirectoryBusy          another process has it open
    ├── ConfigInvalid
    ├── ReloadFailed               other recipes were not taken; those before go on
    ├── ListenFailed               the address cannot be bound
    └── InternalError              our fault
"""

from __future__ import annotations

from lookalike_extractor.errors import ImageError, LookalikeError


class DecodeStalled(ImageError):
    reason = "DECODE_STALLED"


class ArgumentInvalid(LookalikeError):
    status = "INVALID_ARGUMENT"
    reason = "ARGUMENT_INVALID"


class MessageTooLarge(ArgumentInvalid):
    reason = "MESSAGE_TOO_LARGE"


class DescriptorInvalid(ArgumentInvalid):
    reason = "DESCRIPTOR_INVALID"


class AttributesInvalid(ArgumentInvalid):
    reason = "ATTRIBUTES_INVALID"


class FilterInvalid(ArgumentInvalid):
    reason = "FILTER_INVALID"


class PageTokenInvalid(ArgumentInvalid):
    reason = "PAGE_TOKEN_INVALID"


class RecipeUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "RECIPE_UNKNOWN"


class CollectionUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "COLLECTION_UNKNOWN"


class ItemUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "ITEM_UNKNOWN"


class JobUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "JOB_UNKNOWN"


class AliasUnknown(LookalikeError):
    status = "NOT_FOUND"
    reason = "ALIAS_UNKNOWN"


class CollectionAliased(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "COLLECTION_ALIASED"


class CollectionExists(LookalikeError):
    status = "ALREADY_EXISTS"
    reason = "COLLECTION_EXISTS"


class SpaceMismatch(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "SPACE_MISMATCH"


class JobNotDone(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "JOB_NOT_DONE"


class NoBackground(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "NO_BACKGROUND"


class NotCalibrated(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "NOT_CALIBRATED"


class QueueFull(LookalikeError):
    status = "RESOURCE_EXHAUSTED"
    reason = "QUEUE_FULL"


class DeadlineUnreachable(LookalikeError):
    status = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_UNREACHABLE"


class DeviceStalled(LookalikeError):
    status = "UNAVAILABLE"
    reason = "DEVICE_STALLED"


class Draining(LookalikeError):
    status = "UNAVAILABLE"
    reason = "DRAINING"


class DiskFull(LookalikeError):
    status = "RESOURCE_EXHAUSTED"
    reason = "DISK_FULL"


class StoreDamaged(LookalikeError):
    status = "DATA_LOSS"
    reason = "STORE_DAMAGED"


class StoreTooNew(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "STORE_TOO_NEW"


class StoreUnusable(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "STORE_UNUSABLE"


class TokenMissing(LookalikeError):
    status = "UNAUTHENTICATED"
    reason = "TOKEN_MISSING"


class TokenInvalid(LookalikeError):
    status = "UNAUTHENTICATED"
    reason = "TOKEN_INVALID"


class ScopeMissing(LookalikeError):
    status = "PERMISSION_DENIED"
    reason = "SCOPE_MISSING"


class TokenLimit(LookalikeError):
    status = "RESOURCE_EXHAUSTED"
    reason = "TOKEN_LIMIT"


class DataDirectoryBusy(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "DATA_DIRECTORY_BUSY"


class ConfigInvalid(LookalikeError):
    status = "INVALID_ARGUMENT"
    reason = "CONFIG_INVALID"


class ReloadFailed(LookalikeError):
    status = "FAILED_PRECONDITION"
    reason = "RELOAD_FAILED"


class ListenFailed(LookalikeError):
    status = "UNAVAILABLE"
    reason = "LISTEN_FAILED"


class InternalError(LookalikeError):
    status = "INTERNAL"
    reason = "INTERNAL"
