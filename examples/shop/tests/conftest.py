"""The tests run in the database that DATABASE_URL names: an empty one, thrown away afterwards."""

import pytest
from django.core.management import call_command

from catalogue.models import Order, Product


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker):
    """Migrate the given database itself.

    pytest-django would make a `test_…` database beside it, but the role that the platform hands to tests owns this one
    and may neither make nor reach another. Every test runs in a transaction that is rolled back.
    """
    with django_db_blocker.unblock():
        call_command("migrate", verbosity=0)
        if Order.objects.exists():
            pytest.exit("DATABASE_URL names a database with orders in it. Give the tests an empty one.", returncode=2)


@pytest.fixture
def mug(db):
    """A product, as the data migration made it."""
    return Product.objects.get(slug="mug")
