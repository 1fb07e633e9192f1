"""The server's page for browsers, and what it counts."""

from __future__ import annotations

import re

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException

from pipeline.inference.admission import Admission
from pipeline.inference.metrics import Metrics
from tests.inference.images import encoded
from tests.inference.served import Served

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def samples(text: str) -> dict[tuple[str, str], float]:
    """Each sample by name and status, as Prometheus's own parser reads it."""
    return {
        (sample.name, sample.labels.get("status", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_browsers_get_a_page_that_loads_nothing_and_others_are_told_to_post(released, tmp_path):
    with Served(released, tmp_path / "log", "--workers", "1") as server:
        page = httpx2.get(server.address, headers=BROWSER)
        assert page.status_code == 200
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"""(src|href)=["']?(https?:)?//""", page.text)
        for target in re.findall(r'href="(\w+)"', page.text):
            assert httpx2.get(f"{server.address}/{target}").status_code == 200
        other = httpx2.get(server.address)
        assert other.status_code == 405
        assert other.headers["allow"] == "POST"

        answers = [
            httpx2.post(server.address, content=c) for c in (encoded("PNG"), encoded("JPEG"), b"no")
        ]
        statuses = [answer.status_code for answer in answers]
        assert statuses == [200, 200, 415]
        metrics = httpx2.get(f"{server.address}/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        found = samples(metrics.text)
        assert found["edge_vit_requests_total", "200"] == 2
        assert found["edge_vit_requests_total", "415"] == 1
        assert found["edge_vit_request_seconds_count", ""] == 3
        assert found["edge_vit_workers", ""] == 1
        assert found["edge_vit_ready", ""] == 1
        assert found["edge_vit_queue_depth", ""] == 0


def test_gauges_follow_the_queue():
    admission = Admission(1, 2, max_body_bytes=1000, body_seconds=1)
    metrics = Metrics(admission, ready=lambda: False)
    with admission.slot(), admission.slot(), admission.slot():
        found = samples(metrics.text().decode())
        assert found["edge_vit_queue_depth", ""] == 2
        assert found["edge_vit_queue_capacity", ""] == 2
        assert found["edge_vit_requests_in_flight", ""] == 3
        assert found["edge_vit_ready", ""] == 0
        with pytest.raises(HTTPException), admission.slot():
            pass
    assert samples(metrics.text().decode())["edge_vit_queue_depth", ""] == 0


def test_a_client_that_went_away_is_counted_apart():
    metrics = Metrics(Admission(1, 0, max_body_bytes=1, body_seconds=1), ready=lambda: True)
    metrics.record(0, 0.2)
    assert samples(metrics.text().decode())["edge_vit_requests_total", "none"] == 1
