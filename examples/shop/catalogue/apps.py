"""The one Django app of the shop."""

from django.apps import AppConfig


class CatalogueConfig(AppConfig):
    name = "catalogue"
