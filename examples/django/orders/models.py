from __future__ import annotations

from django.db import models


class Order(models.Model):
    item = models.CharField(max_length=100)
    quantity = models.PositiveIntegerField()
    email = models.EmailField()
    confirmed_at = models.DateTimeField(null=True)
    weighed_at = models.DateTimeField(null=True)
