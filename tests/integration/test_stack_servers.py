"""Each embedded server alone."""

from __future__ import annotations

import httpx
import psycopg
import pytest

from branchline.stack.postgres import Postgres

pytestmark = pytest.mark.stack


def test_everything_answers(stack, postgres_nonprod: Postgres, openbao, registry) -> None:
    with psycopg.connect(postgres_nonprod.admin_url().reveal()) as connection:
        assert connection.execute("SHOW server_version_num").fetchone()[0].startswith("18")
    assert httpx.get(f"{openbao.endpoint}/v1/sys/health").json()["initialized"]
    assert httpx.get(f"http://127.0.0.1:{stack[1].ports.proxy}/", headers={"host": "nobody"}).status_code == 404
    assert httpx.get(f"http://{registry.endpoint}/v2/_catalog").json() == {"repositories": []}
