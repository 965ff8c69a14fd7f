"""What jobs make, served beside the policies that they began with.

Servers that share a database serve the same: what one of them has made, the others load, and
what was deleted, or belongs to a job that came to nothing, they serve no longer.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Lock

from steerward.jobs.records import FineTuned
from steerward.jobs.store import JobStore
from steerward.policy.trainable import TrainablePolicy
from steerward.protocol.errors import InvalidRequest, NotFound, SteerwardError
from steerward.protocol.fine_tuning import FINAL_STATUSES

logger = logging.getLogger(__name__)


class FineTunedModels:
    """The policies of jobs on this server; methods may be called from any thread, and block.

    Args:
        store: Lists what jobs have made.
        policies: By name, those that jobs can fine-tune.
    """

    def __init__(self, store: JobStore, policies: Mapping[str, TrainablePolicy]) -> None:
        self._store = store
        self._policies = policies
        self._changing = Lock()
        self._is_stopped = False
        # By name: the job that publishes it here and has not ended.
        self._in_work: dict[str, str] = {}
        # By name: the version that is served, or was refused.
        self._known: dict[str, str] = {}

    def begin(self, name: str, job_id: str) -> None:
        """Let a job of this server publish policies under a name."""
        with self._changing:
            self._in_work[name] = job_id

    def bring_up_to_date(self) -> None:
        """Serve what jobs have made, and nothing of those that came to nothing.

        It may load many models; the rest is left after `stop`.

        Raises:
            NotReady: If the database cannot be used now.
        """
        with self._changing:
            for name, job_id in [*self._in_work.items()]:
                self._look_at(name, job_id)
            made = {one.name: one for one in self._store.fine_tuned()}
            for name in [*self._known]:
                if name not in made:
                    del self._known[name]
                    self.drop(name)
            for one in made.values():
                if self._is_stopped:
                    return
                if one.name not in self._in_work:
                    self._serve(one)

    def stop(self) -> None:
        """Load no further model."""
        self._is_stopped = True

    def _look_at(self, name: str, job_id: str) -> None:
        """Let go of a job that has ended, here or on another server."""
        status = self._store.get(job_id).status
        if status not in FINAL_STATUSES:
            return
        del self._in_work[name]
        if status == "succeeded":
            return
        # There is a record of a job that was cancelled when all but that was done.
        with suppress(NotFound):
            try:
                self._store.delete_fine_tuned(name)
            except InvalidRequest:
                # Another job has begun with it already.
                return
        self.drop(name)

    def _serve(self, made: FineTuned) -> None:
        policy = self._policies.get(made.base)
        if policy is None or self._known.get(made.name) == made.weight_version:
            return
        self._known[made.name] = made.weight_version
        is_served = made.name in policy.variants
        if is_served and policy.card(made.name).weight_version == made.weight_version:
            return
        load = policy.load_adapter if made.kind == "lora" else policy.load_variant
        try:
            load(made.name, made.folder)
        # The server is worth more than one of its models; who asks for it hears 404.
        except (SteerwardError, OSError, RuntimeError) as error:
            logger.error("%s of %s is not served: %s", made.name, made.job_id, error)

    def drop(self, name: str) -> None:
        """Serve a model no longer."""
        for policy in self._policies.values():
            if name in policy.variants:
                policy.drop(name)

    def forget(self, made: FineTuned) -> Path:
        """Serve a model no longer that is not listed any more; return the folder of its weights."""
        with self._changing:
            self._known.pop(made.name, None)
            self.drop(made.name)
        return Path(made.folder)
