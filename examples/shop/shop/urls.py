"""Which address is answered by what. The page itself, `/`, comes from WhiteNoise."""

from django.urls import path

from catalogue import api, events
from shop import status

urlpatterns = [
    path("api/products", api.products),
    path("api/orders", api.orders),
    path("events", events.events),
    path("healthz", status.healthz),
    path("version", status.version),
]
