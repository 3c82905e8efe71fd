"""Addresses of accounts, under /accounts/. Sign-up, e-mail and password reset are left out: an admin makes accounts."""

from allauth.account import views as allauth_views
from django.urls import path

from . import views

urlpatterns = [
    path("login/", views.sign_in, name="account_login"),
    path("logout/", views.sign_out, name="account_logout"),
    path("inactive/", allauth_views.account_inactive, name="account_inactive"),
    path("password/change/", views.password_change, name="account_change_password"),
    path("reauthenticate/", allauth_views.reauthenticate, name="account_reauthenticate"),
    path("language/", views.language_set, name="set_language"),
]
