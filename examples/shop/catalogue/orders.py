"""What happens to an order: it is placed, it is shipped, it is looked at."""

from django.db import transaction
from django.utils import timezone

from catalogue.models import Order, Product


def place(product: Product, quantity: int) -> Order:
    """Take an order at today's price."""
    return Order.objects.create(product=product, quantity=quantity, total=product.price * quantity)


@transaction.atomic
def ship_next() -> Order | None:
    """Ship the oldest order that waits; None where none does.

    SKIP LOCKED lets any number of workers share the queue: each takes an order that no other has in hand.
    """
    waiting = Order.objects.select_for_update(skip_locked=True, of=["self"]).select_related("product")
    order = waiting.filter(status=Order.Status.PLACED).order_by("id").first()
    if order is not None:
        order.status = Order.Status.SHIPPED
        order.shipped_at = timezone.now()
        order.save(update_fields=["status", "shipped_at"])
    return order


def newest(limit: int = 8) -> list[dict]:
    """The latest orders, newest first, as the API tells them."""
    return [order.as_json() for order in Order.objects.select_related("product")[:limit]]
