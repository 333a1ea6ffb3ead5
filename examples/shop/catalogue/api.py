"""The JSON API: look at products, place orders."""

import json

from django import forms
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_http_methods, require_safe

from catalogue import orders as order_book
from catalogue.models import Order, Product


class OrderForm(forms.ModelForm):
    """Checks what somebody asks for: `{"product": "mug", "quantity": 2}`."""

    product = forms.ModelChoiceField(Product.objects.all(), to_field_name="slug")

    class Meta:
        model = Order
        fields = ["product", "quantity"]


@require_safe
def products(request: HttpRequest) -> JsonResponse:
    """All there is to buy."""
    return JsonResponse({"products": [product.as_json() for product in Product.objects.all()]})


@require_http_methods(["GET", "HEAD", "POST"])
def orders(request: HttpRequest) -> JsonResponse:
    """The newest orders; POST places one."""
    if request.method != "POST":
        return JsonResponse({"orders": order_book.newest()})
    try:
        wanted = json.loads(request.body)
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict):
        return JsonResponse({"errors": {"body": ["Send a JSON object."]}}, status=400)
    form = OrderForm({"quantity": 1, **wanted})
    if not form.is_valid():
        return JsonResponse({"errors": form.errors}, status=400)
    order = order_book.place(form.cleaned_data["product"], form.cleaned_data["quantity"])
    return JsonResponse(order.as_json(), status=201)
