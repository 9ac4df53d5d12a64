"""Other recipes in the place of those that are served, while they are served.

    read      the settings, again: recipes may be others, or the files behind them
    load      models that have changed, onto every replica's device; the others are kept as they are
    try       each one here, where it harms nobody, then a canary all the way through each replica
    swap      at once; images on the road end in the models that they came for

Whatever goes wrong on the way leaves all as it was, and says why.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lookalike_extractor.descriptor import group_recipes
from lookalike_extractor.errors import LookalikeError

from lookalike_server.assembly import served_recipes
from lookalike_server.devices import load_devices
from lookalike_server.errors import ConfigInvalid, ReloadFailed
from lookalike_server.served import Model, Served, models_on
from lookalike_server.watched import stamp

if TYPE_CHECKING:
    from lookalike_extractor.recipe import Recipe

    from lookalike_server.config import Settings
    from lookalike_server.engine import Engine

_RELOADABLE = {"recipes", "served_recipes", "face_weights"}
# No model takes so long to load; a disk that hangs does.
_MOST_SECONDS = 600.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sources:
    """What a recipe is made of: when it is the same, so are its descriptors."""

    recipe: Recipe
    weights: tuple[int, int, int] | None
    whitening: tuple[int, int, int] | None


def sources(recipes: Mapping[str, Recipe]) -> dict[str, Sources]:
    """Looks at the recipes and at the times of their files. Take it before the files are read."""
    return {
        name: Sources(
            dataclasses.replace(recipe, duplicate_threshold=0.0),  # no part of the model
            *(stamp(Path(file)) if file else None for file in (recipe.weights, recipe.whitening)),
        )
        for name, recipe in recipes.items()
    }


@dataclass(frozen=True)
class Reloaded:
    """Recipes by what became of them: their model was loaded, or is the one from before, or is gone."""

    loaded: Sequence[str]
    kept: Sequence[str]
    gone: Sequence[str]


class Reloading:
    """It belongs to the engine's event loop.

    Args:
        settings: in force.
        read: reads them again; raises ConfigInvalid.
        made_of: the sources of what the engine serves.

    Attributes:
        counts: reloads by how they ended, "done" or "failed".
        fault: why the last one failed; "" when it did not.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        engine: Engine,
        made_of: Mapping[str, Sources],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.fault = ""
        self._settings, self._read, self._engine, self._made_of = settings, read, engine, made_of
        self._busy = False

    async def reload(self) -> Reloaded:
        """Serves what the settings say now. Raises what was wrong; then nothing has changed."""
        if self._busy:
            raise ReloadFailed("A reload is under way. Try again when it has ended.")
        self._busy = True
        try:
            reloaded = await self._reload()
        except Exception as error:
            fault = _fault(error)
            self.fault = fault.message
            self.counts["failed"] += 1
            _log.error("recipes were not reloaded, those before go on: %s", fault)
            raise fault from error
        finally:
            self._busy = False
        self.fault = ""
        self.counts["done"] += 1
        _log.info("recipes were reloaded: %s", reloaded)
        return reloaded

    async def follow(self, asked: asyncio.Event, also: Callable[[], None]) -> None:
        """Reloads when it is asked to, and returns then.

        Args:
            also: reads what else can be read again.
        """
        await asked.wait()
        asked.clear()
        try:
            also()
        except LookalikeError as error:
            _log.error("%s The files as they were before stay in force.", error)
        with suppress(LookalikeError):  # it is logged
            await self.reload()

    async def _reload(self) -> Reloaded:
        settings = self._read()
        _check_reloadable(self._settings, settings)
        recipes = served_recipes(settings)
        made_of = sources(recipes)
        kept = [model for model in self._engine.served.models if self._unchanged(model, recipes, made_of)]
        names = {name for model in kept for name in model.spaces}
        loaded = await self._load(settings, [recipe for name, recipe in recipes.items() if name not in names])
        if sources(recipes) != made_of:
            raise ReloadFailed("A file of a recipe has changed while it was read. Reload again.")
        await self._engine.canaries.check(loaded)
        return self._swap(settings, Served(recipes, [*kept, *loaded]), made_of)

    def _unchanged(self, model: Model, recipes: Mapping[str, Recipe], made_of: Mapping[str, Sources]) -> bool:
        """Whether the same recipes, made of the same, share this model still."""
        groups = [[recipe.name for recipe in group] for group in group_recipes(list(recipes.values()))]
        return sorted(model.spaces) in map(sorted, groups) and all(
            made_of[name] == self._made_of[name] for name in model.spaces
        )

    async def _load(self, settings: Settings, recipes: Sequence[Recipe]) -> list[Model]:
        """Returns models that have run once, each recipe's own. Nobody waits for them but the reload."""
        if not recipes:
            return []
        try:
            async with asyncio.timeout(_MOST_SECONDS):
                return await _in_thread(lambda: _ran(settings, recipes))
        except TimeoutError:
            raise ReloadFailed(f"Loading took more than {_MOST_SECONDS:.0f} s.") from None

    def _swap(self, settings: Settings, served: Served, made_of: Mapping[str, Sources]) -> Reloaded:
        before = self._engine.served
        self._engine.serve(served)
        self._settings, self._made_of = settings, made_of
        for model in before.models:
            if model not in served.models:
                # Its weights are in reference cycles, and go once its last image has ended.
                weakref.finalize(model, gc.collect).atexit = False
        old = {model.number for model in before.models}
        return Reloaded(
            loaded=[name for name, model in served.model_of.items() if model.number not in old],
            kept=[name for name, model in served.model_of.items() if model.number in old],
            gone=[name for name in before.recipes if name not in served.recipes],
        )


def _check_reloadable(before: Settings, now: Settings) -> None:
    changed = [
        name
        for name in type(now).model_fields
        if name not in _RELOADABLE and getattr(before, name) != getattr(now, name)
    ]
    if changed:
        raise ConfigInvalid(
            f"{', '.join(changed)}: cannot change while the server runs; only recipes can. "
            "Restart it, or take the change back."
        )


def _ran(settings: Settings, recipes: Sequence[Recipe]) -> list[Model]:
    devices = load_devices(settings, recipes)
    models = models_on(devices)
    for device in devices:
        for model, tried in zip(models, device.warm_up(), strict=False):
            model.learn(tried)
    return models


def _fault(error: Exception) -> LookalikeError:
    if isinstance(error, LookalikeError):
        return error
    return ReloadFailed(f"{type(error).__name__}: {error}")


async def _in_thread(work: Callable[[], list[Model]]) -> list[Model]:
    """Runs what takes long in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Model]] = loop.create_future()

    def answer(models: list[Model] | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_exception(error) if error else done.set_result(models or [])

    def run() -> None:
        models, fault = None, None
        try:
            models = work()
        except BaseException as error:
            fault = error
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(answer, models, fault)

    threading.Thread(target=run, name="reload", daemon=True).start()
    return await done
