"""Which weights requests are drawn by: the policy's own, its adapters, and those that take over."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from steerward.policy.local.adapters import Adapters
from steerward.policy.local.cache import CacheShape
from steerward.policy.local.model import Weights
from steerward.protocol.errors import CheckpointRefused, NotFound, brief


class ServedWeights:
    """Weights by the name of the adapter, and who uses them.

    Args:
        weights: The policy's own.
        name: Of the policy.
        run: Runs a function in the device thread, between two steps.
    """

    def __init__(
        self, weights: Weights, *, name: str, run: Callable[[Callable[[], Weights | None]], object]
    ) -> None:
        self._by_adapter: dict[str | None, Weights] = {None: weights}
        self._name = name
        self._run = run
        self._adapters = Adapters()
        # Only one thread at a time changes what is served.
        self._changing = threading.Lock()
        # Requests that run with weights, from before they are encoded.
        self._users: Counter[Weights] = Counter()
        self._counting = threading.Lock()

    @property
    def own(self) -> Weights:
        """Those of the policy itself."""
        return self._by_adapter[None]

    @property
    def adapters(self) -> Sequence[str]:
        """Names of the adapters."""
        return [name for name in self._by_adapter if name is not None]

    def of(self, adapter: str | None) -> Weights:
        """Return the weights of an adapter, or the policy's own.

        Raises:
            NotFound: If there is no such adapter.
        """
        weights = self._by_adapter.get(adapter)
        if weights is None:
            known = ", ".join(self.adapters) or "none"
            raise NotFound(
                f"{self._name} has no adapter {brief(str(adapter))!r}; known: {known}",
                param="model",
            )
        return weights

    def take(self, adapter: str | None) -> Weights:
        """Return weights for a request, which gives them back when it ends.

        Raises:
            NotFound: If there is no such adapter.
        """
        with self._counting:
            weights = self.of(adapter)
            self._users[weights] += 1
            return weights

    def give_back(self, weights: Weights) -> None:
        """Count one request less."""
        with self._counting:
            self._users[weights] -= 1
            if not self._users[weights]:
                del self._users[weights]

    def replace(self, weights: Weights) -> None:
        """Let requests from now on take these; adapters go with the weights they adapted."""
        with self._changing:
            self._adapters = Adapters()
            # One assignment: a request sees all of the old or all of the new.
            self._by_adapter = {None: weights}

    def add_adapter(self, adapter: str, folder: Path) -> Weights:
        """Load an adapter, and let requests from now on take it.

        Raises:
            CheckpointRefused: If it does not fit the weights, or has the policy's name.
        """
        if adapter == self._name:
            raise CheckpointRefused(
                f"{adapter!r} is the policy itself; give the adapter another name"
            )
        with self._changing:
            base, adapters = self.own, self._adapters
            # It changes the model that runs in the device thread.
            adapted = self._run(lambda: adapters.add(base, adapter, folder))
            assert isinstance(adapted, Weights)
            self._by_adapter = {**self._by_adapter, adapter: adapted}
            # Nobody can take it up any more, so who uses it now is known.
            self._run(lambda: adapters.take_out_retired(self._in_use()))
        return adapted

    def _in_use(self) -> set[Weights]:
        with self._counting:
            return set(self._users)


def check_takes_over(new: Weights, old: Weights, *, folder: str | Path, max_positions: int) -> None:
    """Refuse weights that cannot take over from others, for the same tokenizer and cache.

    Args:
        new: That arrive.
        old: That are served.
        folder: Where the new ones come from.
        max_positions: What requests may have.

    Raises:
        CheckpointRefused: If they cannot.
    """
    way_out = "serve them as a policy of their own"
    if new.max_positions < max_positions:
        raise CheckpointRefused(
            f"the weights in {folder} reach {new.max_positions:,} positions, requests may have "
            f"{max_positions:,}; {way_out}"
        )
    shapes = [CacheShape.of(one.model.config, one.model.dtype) for one in (new, old)]
    if shapes[0] != shapes[1]:
        raise CheckpointRefused(
            f"the weights in {folder} have other layers than those they would take over from; "
            f"{way_out}"
        )
    sizes = [one.model.get_input_embeddings().weight.shape[0] for one in (new, old)]  # pyright: ignore
    if sizes[0] != sizes[1]:
        raise CheckpointRefused(
            f"the weights in {folder} embed {sizes[0]} tokens, the tokenizer that is served goes "
            f"with {sizes[1]}; {way_out}"
        )
