"""How many model servers a variant is to have, by how many requests it has in hand.

More as soon as the mean of some seconds is above what they should have; fewer only when no such
mean of a whole cooldown was, so that loads that come and go change nothing. Between both lies a
tenth to either side. A figure that is missing changes nothing, and what was seen before it counts
no more; so does a change, whose effect is to be seen first.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from dataclasses import dataclass

from services.deployer.agent.data_plane import DataPlane, VariantKey
from services.deployer.agent.envoy_admin import EnvoyUnreachableError
from services.deployer.rollouts.plans import Autoscaling, ServingSpec

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
MEAN_SECONDS = 5.0
TOLERANCE = 0.1
_GAP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Scale:
    """A new number of model servers, and why."""

    count: int
    why: str


class Scaler:
    """Decides for one variant.

    Args:
        serving: How it is served, autoscaled.
        count: How many model servers it has.
    """

    def __init__(self, serving: ServingSpec, count: int) -> None:
        if serving.autoscaling is None:
            raise ValueError("it is not autoscaled")
        self._plan: Autoscaling = serving.autoscaling
        at_once = serving.worker_count * max(1, serving.concurrency)
        self._target = self._plan.target_concurrency or float(at_once)
        self._mean_seconds = min(MEAN_SECONDS, self._plan.cooldown_seconds / 2)
        self._active: deque[tuple[float, float]] = deque()
        self._means: deque[tuple[float, float]] = deque()
        self._since = 0.0
        self.count = count

    def observe(self, active: float, now: float, *, ready: int) -> Scale | None:
        """Take in how many requests are in hand; return a change, if there is to be one.

        Args:
            active: Over all model servers; NaN when it is not known.
            now: In seconds, on any clock that only rises.
            ready: How many model servers answer; until all do, nothing changes.
        """
        late = bool(self._active) and now - self._active[-1][0] > _GAP_SECONDS
        if late or not (math.isfinite(active) and active >= 0) or ready != self.count:
            self._forget()
        if not (math.isfinite(active) and active >= 0) or ready != self.count:
            return None
        self._take(active, now)
        if now - self._since < self._mean_seconds:
            return None
        mean = self._means[-1][1]
        scale = self._grown(mean) or self._shrunk(now)
        if scale is not None:
            self.count = scale.count
            self._forget()
        return scale

    def _take(self, active: float, now: float) -> None:
        if not self._active:
            self._since = now
        self._active.append((now, active))
        while self._active[0][0] < now - self._mean_seconds:
            self._active.popleft()
        mean = math.fsum(value for _, value in self._active) / len(self._active)
        self._means.append((now, mean))
        while self._means[0][0] < now - self._plan.cooldown_seconds:
            self._means.popleft()

    def _grown(self, mean: float) -> Scale | None:
        if mean <= self._target * self.count * (1 + TOLERANCE):
            return None
        count = min(self._plan.max_count, math.ceil(mean / self._target))
        why = f"{mean:.1f} requests in hand, {self._target:g} wanted for each of {self.count}"
        return Scale(count, why) if count > self.count else None

    def _shrunk(self, now: float) -> Scale | None:
        if now - self._since < self._plan.cooldown_seconds:
            return None
        peak = max(mean for _, mean in self._means)
        count = max(self._plan.min_count, math.ceil(peak / (self._target * (1 - TOLERANCE))))
        seen = f"at most {peak:.1f} requests in hand for {self._plan.cooldown_seconds:g} s"
        why = f"{seen}, {self._target:g} wanted for each"
        return Scale(count, why) if count < self.count else None

    def _forget(self) -> None:
        self._active.clear()
        self._means.clear()


class Scaling:
    """Scales every variant of this machine that is to be."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane
        self._scalers: dict[VariantKey, Scaler] = {}

    async def run(self) -> None:
        """Look and scale until cancelled; whatever goes wrong is not worth what runs."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look(clock())
            except Exception:
                logger.exception("not scaled")

    async def look(self, now: float) -> None:
        """Look at each variant once."""
        autoscaled = self._data_plane.autoscaled()
        for gone in self._scalers.keys() - autoscaled.keys():
            del self._scalers[gone]
        conditions = self._data_plane.ready()
        for key, serving in autoscaled.items():
            condition = conditions.get(key)
            if condition is None:
                self._scalers.pop(key, None)
                continue
            scaler = self._scalers.get(key)
            if scaler is None or scaler.count != condition.wanted_count:  # it was started anew
                scaler = self._scalers[key] = Scaler(serving, condition.wanted_count)
            scale = scaler.observe(await self._active(key), now, ready=condition.ready_count)
            if scale is not None:
                logger.info(
                    "scaled", extra={"variant": str(key), "to": scale.count, "why": scale.why}
                )
                self._data_plane.scale(key, scale.count, scale.why)

    async def _active(self, key: VariantKey) -> float:
        try:
            return float(await self._data_plane.envoy.active_requests(str(key)))
        except EnvoyUnreachableError:
            return math.nan
