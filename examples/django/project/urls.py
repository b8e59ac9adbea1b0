from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from orders import views

urlpatterns = [
    path("orders", views.place),
    path("orders/<int:order_id>", views.show),
    path("admin/", admin.site.urls),
    path("queue/", include("procrastinate_django.dashboard")),
]
