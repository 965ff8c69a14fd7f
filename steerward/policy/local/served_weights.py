"""Which weights requests are drawn by: the policy's own, its variants, and those that take over.

A variant is an adapter on the policy's own weights, or a whole set of weights of the same shape.
Either is looked up by its name when a request begins, and the request keeps what it found.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from steerward.models.source import resolve_source
from steerward.policy.local.adapters import put_in, read_adapter, take_out
from steerward.policy.local.cache import CacheShape
from steerward.policy.local.checkpoint import load_weights
from steerward.policy.local.model import Weights
from steerward.policy.local.worker import Worker
from steerward.protocol.errors import CheckpointRefused, NotFound, brief


class ServedWeights:
    """Weights by the name of the variant, and who uses them.

    Whatever loads blocks for as long as that takes. Files are read in the caller's thread; the
    device thread sees no more than another entry of a dictionary, or an adapter put into its
    model.

    Args:
        weights: The policy's own.
        name: Of the policy.
        worker: Whose thread runs the models.
        max_positions: What requests may have.
    """

    def __init__(self, weights: Weights, *, name: str, worker: Worker, max_positions: int) -> None:
        self._by_name: dict[str | None, Weights] = {None: weights}
        self._name = name
        self._worker = worker
        self._max_positions = max_positions
        # One load at a time: each takes the memory of a model.
        self._loading = threading.Lock()
        # Only one thread at a time changes what is served.
        self._changing = threading.Lock()
        # Requests that run with weights, from before they are encoded.
        self._users: Counter[Weights] = Counter()
        # Adapters that nobody can ask for any more, and some still draw with.
        self._retired: set[Weights] = set()
        self._counting = threading.Lock()

    @property
    def own(self) -> Weights:
        """Those of the policy itself."""
        return self._by_name[None]

    @property
    def variants(self) -> Sequence[str]:
        """Names of the variants."""
        return [name for name in self._by_name if name is not None]

    def of(self, variant: str | None) -> Weights:
        """Return the weights of a variant, or the policy's own.

        Raises:
            NotFound: If there is no such variant.
        """
        weights = self._by_name.get(variant)
        if weights is None:
            known = ", ".join(self.variants) or "none"
            raise NotFound(
                f"{self._name} has no variant {brief(str(variant))!r}; known: {known}",
                param="model",
            )
        return weights

    def take(self, variant: str | None) -> Weights:
        """Return weights for a request, which gives them back when it ends.

        Raises:
            NotFound: If there is no such variant.
        """
        with self._counting:
            weights = self.of(variant)
            self._users[weights] += 1
            return weights

    def give_back(self, weights: Weights) -> None:
        """Count one request less, of which the worker knows nothing any more."""
        with self._counting:
            self._users[weights] -= 1
            if self._users[weights]:
                return
            del self._users[weights]
            was_last = weights in self._retired
            self._retired.discard(weights)
        if was_last:
            self._worker.post(partial(take_out, weights))

    def replace_own(self, folder: str | Path) -> Weights:
        """Load weights, and let requests for the policy itself take them from now on.

        Adapters go with the weights they adapted; other variants stay.

        Raises:
            CheckpointRefused: If they cannot take over.
        """
        with self._loading:
            weights = self._load(folder)
            with self._changing, self._counting:
                kept = {
                    name: variant
                    for name, variant in self._by_name.items()
                    if name is not None and variant.adapter is None
                }
                # One assignment: a request sees all of the old or all of the new.
                self._by_name = {None: weights, **kept}
            return weights

    def add_variant(self, name: str, folder: str | Path) -> Weights:
        """Load a whole set of weights, and let requests for that name take them from now on.

        Raises:
            CheckpointRefused: If they are of another shape, or have the policy's name.
        """
        self._check_name(name)
        with self._loading:
            weights = self._load(folder)
            with self._changing:
                self._exchange(name, weights)
            return weights

    def add_adapter(self, name: str, folder: Path) -> Weights:
        """Load an adapter, and let requests for that name take it from now on.

        Raises:
            CheckpointRefused: If it does not fit the weights, or has the policy's name.
        """
        self._check_name(name)
        with self._loading:
            files = read_adapter(folder)
            with self._changing:
                base = self.own
                # It changes the model that runs in the device thread.
                adapted = self._worker.run(lambda: put_in(base, name, files))
                self._exchange(name, adapted)
            return adapted

    def drop(self, name: str) -> None:
        """Let no more requests take a variant.

        Raises:
            NotFound: If there is none of that name.
        """
        with self._changing:
            self.of(name)
            self._exchange(name, None)

    def _check_name(self, name: str) -> None:
        if not name:
            raise CheckpointRefused("a variant is asked for by its name, which is empty; give one")
        if name == self._name:
            raise CheckpointRefused(f"{name!r} is the policy itself; give the variant another name")

    def _load(self, folder: str | Path) -> Weights:
        old = self.own
        dtype = str(old.model.dtype).removeprefix("torch.")
        new = load_weights(resolve_source(str(folder)), device=old.model.device, dtype=dtype)
        check_takes_over(new, old, folder=folder, max_positions=self._max_positions)
        return new

    def _exchange(self, name: str, weights: Weights | None) -> None:
        """Serve other weights under a name, or none, and take out an adapter that was there."""
        with self._counting:
            old = self._by_name.get(name)
            changed = {**self._by_name, name: weights}
            # One assignment: a request sees all of the old or all of the new.
            self._by_name = {key: one for key, one in changed.items() if one is not None}
            if old is None or old.adapter is None:
                return
            if old in self._users:
                self._retired.add(old)
                return
        self._worker.post(partial(take_out, old))


def check_takes_over(new: Weights, old: Weights, *, folder: str | Path, max_positions: int) -> None:
    """Refuse weights that cannot be served by the same tokenizer and cache as others.

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
            f"the weights in {folder} have other layers than those that are served; {way_out}"
        )
    sizes = [one.model.get_input_embeddings().weight.shape[0] for one in (new, old)]  # pyright: ignore
    if sizes[0] != sizes[1]:
        raise CheckpointRefused(
            f"the weights in {folder} embed {sizes[0]} tokens, the tokenizer that is served goes "
            f"with {sizes[1]}; {way_out}"
        )
