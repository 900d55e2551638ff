from collections.abc import Iterator

import pytest
from dashboard_served import PATIENCE_S, Served

from minddiffuser.streaming.dashboard.hub import Hub


@pytest.fixture
def served() -> Iterator[Served]:
    """A server with its hub, for three pages."""
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from minddiffuser.streaming.dashboard.server import DashboardServer

    said: list[str] = []
    hub = Hub(most_clients=3)
    with DashboardServer(hub, said=said.append, patience=PATIENCE_S) as server:
        yield Served(hub, server, said)
