from __future__ import annotations

import json

from django.core.exceptions import ValidationError
from django.db import transaction
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from orders import tasks
from orders.models import Order

STOCK = 10


@csrf_exempt
def place(request: HttpRequest) -> JsonResponse:
    """Take an order. It and its two jobs are written in one transaction, or not at all."""
    wanted = json.loads(request.body)
    try:
        with transaction.atomic():
            order = Order(item=wanted["item"], quantity=wanted["quantity"], email=wanted["email"])
            order.full_clean(exclude=["confirmed_at", "weighed_at"])
            order.save()
            job_id = tasks.confirm.defer(order_id=order.pk)
            tasks.weigh.defer(order_id=order.pk)
            if order.quantity > STOCK:
                raise ValidationError(f"there are {STOCK} only")
    except ValidationError as exc:
        return JsonResponse({"error": exc.messages}, status=409)
    return JsonResponse({"order": order.pk, "job": job_id}, status=202)


def show(request: HttpRequest, order_id: int) -> JsonResponse:
    """Show an order."""
    order = Order.objects.filter(pk=order_id).first()
    if order is None:
        return JsonResponse({"error": "there is no such order"}, status=404)
    return JsonResponse(
        {
            "item": order.item,
            "quantity": order.quantity,
            "confirmed_at": order.confirmed_at,
            "weighed_at": order.weighed_at,
        }
    )
