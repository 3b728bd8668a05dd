"""Everything a handler may use, built once by `main` and passed to every call: no global state, no registry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jadevectordb.gateway.access.access import Access
    from jadevectordb.gateway.cluster.view import ClusterView
    from jadevectordb.gateway.service.alerts import Alerts
    from jadevectordb.gateway.service.analytics import Analytics
    from jadevectordb.gateway.service.bm25 import Bm25
    from jadevectordb.gateway.service.catalog import Catalog
    from jadevectordb.gateway.service.embeddings import Embeddings
    from jadevectordb.gateway.service.handles import AnyStore
    from jadevectordb.gateway.service.lifecycle import Lifecycle
    from jadevectordb.gateway.service.rerank import Rerank
    from jadevectordb.gateway.service.telemetry import Telemetry
    from jadevectordb.ports.clock import Clock
    from jadevectordb.ports.metadata_store import MetadataStore
    from jadevectordb.settings.schema import Settings
    from jadevectordb.settings.sources import Known


@dataclass(slots=True)
class Services:
    """shut_down: asks the server to drain and stop; returns at once. cluster_view: of a node of a cluster; None on a single node."""

    version: str
    known: Known
    clock: Clock
    store: AnyStore
    metadata: MetadataStore
    access: Access
    catalog: Catalog
    telemetry: Telemetry
    analytics: Analytics
    embeddings: Embeddings
    rerank: Rerank
    bm25: Bm25
    lifecycle: Lifecycle
    alerts: Alerts
    started_s: float  # monotonic
    shut_down: Callable[[], None] = lambda: None
    grpc_port: int | None = None
    extra_closers: list[Callable[[], None]] = field(default_factory=list)
    cluster_view: ClusterView | None = None
    rest_port: int = 0  # REST listens on; 0 = not yet

    @property
    def settings(self) -> Settings:
        return self.known.settings

    @property
    def cluster(self) -> ClusterView:
        """What answers questions about the cluster, or about there being none."""
        if self.cluster_view is None:
            from jadevectordb.gateway.cluster.single_view import SingleNodeView

            self.cluster_view = SingleNodeView(
                self.catalog,
                self.telemetry,
                self.clock,
                version=self.version,
                host=self.settings.server.host,
                port=lambda: self.rest_port or self.settings.server.port,
                started_s=self.started_s,
            )
        return self.cluster_view
