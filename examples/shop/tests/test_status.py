"""What the shop tells the platform about itself, and the page that it serves."""

import pytest

from shop import status
from shop.version import GREETING, VERSION


@pytest.mark.django_db
def test_healthy_while_the_database_answers(client):
    response = client.get("/healthz")
    assert response.status_code == 200
    assert response.json() == {"healthy": True, "database": "ok"}


def test_unhealthy_without_a_database(client, monkeypatch):
    def no_answer():
        raise ConnectionError

    monkeypatch.setitem(status.DEPENDENCIES, "database", no_answer)
    response = client.get("/healthz")
    assert response.status_code == 503
    assert response.json() == {"healthy": False, "database": "failed"}


def test_version_says_what_runs_where(client, settings):
    settings.ENVIRONMENT, settings.DEPLOYMENT, settings.COMMIT = "develop", "7", "c0ffee"
    assert client.get("/version").json() == {
        "version": VERSION,
        "greeting": GREETING,
        "environment": "develop",
        "deployment": "7",
        "commit": "c0ffee",
    }


def test_the_page_is_served_and_never_kept(client):
    response = client.get("/")
    assert b'<div id="app">' in b"".join(response.streaming_content)
    assert "max-age=0" in response["Cache-Control"]
