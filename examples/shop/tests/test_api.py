"""Looking at products, placing orders, following them."""

import json

import pytest

from catalogue import orders
from catalogue.models import Order


def place(client, **wanted):
    return client.post("/api/orders", wanted, content_type="application/json")


@pytest.mark.django_db
def test_a_new_shop_has_products(client):
    products = client.get("/api/products").json()["products"]
    assert [product["slug"] for product in products] == ["mug", "notebook", "pencils", "lamp", "bag", "plant"]
    assert products[0]["price"] == "14.00"


def test_an_order_is_placed_at_todays_price(client, mug):
    response = place(client, product="mug", quantity=3)
    assert response.status_code == 201
    assert response.json()["status"] == "placed"
    order = Order.objects.get()
    assert (order.product, order.quantity, str(order.total)) == (mug, 3, "42.00")


def test_one_is_what_people_mean_without_a_quantity(client, mug):
    assert place(client, product="mug").json()["total"] == "14.00"


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "product"),
        ({"product": "unicorn"}, "product"),
        ({"product": {"slug": "mug"}}, "product"),
        ({"product": "mug", "quantity": 0}, "quantity"),
        ({"product": "mug", "quantity": 100}, "quantity"),
        ({"product": "mug", "quantity": "many"}, "quantity"),
    ],
)
def test_nonsense_is_not_ordered(client, mug, wanted, field):
    response = place(client, **wanted)
    assert response.status_code == 400
    assert list(response.json()["errors"]) == [field]
    assert not Order.objects.exists()


@pytest.mark.parametrize("body", ["", "{", "[]", '"mug"'])
def test_an_order_is_a_json_object(client, db, body):
    response = client.post("/api/orders", body, content_type="application/json")
    assert response.status_code == 400


def test_the_newest_order_comes_first(client, mug):
    for quantity in (1, 2, 3):
        orders.place(mug, quantity)
    assert [order["quantity"] for order in client.get("/api/orders").json()["orders"]] == [3, 2, 1]


def test_orders_are_streamed_as_they_change(client, mug, settings, monkeypatch):
    monkeypatch.setattr("catalogue.events.close_old_connections", lambda: None)  # it holds the test's transaction
    settings.STREAM_SECONDS = 1
    response = client.get("/events")
    assert response["Content-Type"] == "text/event-stream"
    chunks = iter(response.streaming_content)
    assert next(chunks) == b"retry: 200\n\n"
    assert next(chunks) == b"data: []\n\n"
    orders.place(mug, 2)
    data = next(chunks).decode().removeprefix("data: ")
    assert [order["quantity"] for order in json.loads(data)] == [2]


def test_a_stream_without_a_slot_ends_at_once(client, mug, settings, monkeypatch):
    monkeypatch.setattr("catalogue.events.slots.acquire", lambda blocking: False)
    assert list(client.get("/events").streaming_content) == [b"retry: 2000\n\n", b"data: []\n\n"]
