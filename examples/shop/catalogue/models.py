"""What the shop keeps: products, and the orders that people place."""

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import Q


class Product(models.Model):
    """Something to buy. The page draws it from `frontend/public/products/<slug>.svg`."""

    slug = models.SlugField(unique=True)
    name = models.CharField(max_length=80)
    description = models.CharField(max_length=200)
    price = models.DecimalField(max_digits=8, decimal_places=2)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.name

    def as_json(self) -> dict:
        """What the API tells about it. Money is a string: a float would round it."""
        return {"slug": self.slug, "name": self.name, "description": self.description, "price": str(self.price)}


class Order(models.Model):
    """One product, once or more. Placed by the page, shipped by the worker."""

    class Status(models.TextChoices):
        PLACED = "placed"
        SHIPPED = "shipped"

    product = models.ForeignKey(Product, on_delete=models.PROTECT, related_name="orders")
    quantity = models.PositiveSmallIntegerField(default=1, validators=[MinValueValidator(1), MaxValueValidator(99)])
    total = models.DecimalField(max_digits=10, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PLACED)
    placed_at = models.DateTimeField(auto_now_add=True)
    shipped_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-id"]
        indexes = [
            # What the worker looks for once a second; it stays small however many orders were shipped.
            models.Index(fields=["id"], condition=Q(status="placed"), name="orders_to_ship"),
        ]

    def __str__(self) -> str:
        return f"order {self.pk}: {self.quantity} × {self.product}"

    def as_json(self) -> dict:
        """What the API and the event stream tell about it."""
        return {
            "id": self.pk,
            "product": self.product.name,
            "quantity": self.quantity,
            "total": str(self.total),
            "status": self.status,
            "placed_at": self.placed_at.isoformat(),
        }
