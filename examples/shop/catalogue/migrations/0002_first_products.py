"""Something to buy from the first day on."""

from django.db import migrations

PRODUCTS = [
    ("mug", "Morning mug", "Stoneware, glazed by hand, holds 35 cl.", "14.00"),
    ("notebook", "Dotted notebook", "160 pages that lie flat when open.", "18.50"),
    ("pencils", "Six pencils", "Cedar, from 4B to H, sharpened.", "9.80"),
    ("lamp", "Desk lamp", "Warm light, and a foot that stays put.", "64.00"),
    ("bag", "Canvas bag", "Carries all of the above.", "22.00"),
    ("plant", "Small plant", "Forgives whoever forgets to water it.", "12.50"),
]


def add(apps, schema_editor):
    Product = apps.get_model("catalogue", "Product")
    for slug, name, description, price in PRODUCTS:
        Product.objects.create(slug=slug, name=name, description=description, price=price)


def remove(apps, schema_editor):
    """The way back: what nobody ordered goes, what somebody ordered has to stay."""
    Product = apps.get_model("catalogue", "Product")
    Product.objects.filter(slug__in=[slug for slug, *_ in PRODUCTS], orders=None).delete()


class Migration(migrations.Migration):
    dependencies = [("catalogue", "0001_initial")]

    operations = [migrations.RunPython(add, remove)]
