"""Addresses of the OIDC provider, under /o/. Only what the Hub's sign-in needs: no client registration, device flow or introspection."""

from django.urls import path, re_path
from oauth2_provider import views

app_name = "oauth2_provider"  # the toolkit looks its addresses up by this name

urlpatterns = [
    path("authorize/", views.AuthorizationView.as_view(), name="authorize"),
    path("token/", views.TokenView.as_view(), name="token"),
    path("revoke_token/", views.RevokeTokenView.as_view(), name="revoke-token"),
    path("userinfo/", views.UserInfoView.as_view(), name="user-info"),
    re_path(r"^\.well-known/openid-configuration/?$", views.ConnectDiscoveryInfoView.as_view(), name="oidc-connect-discovery-info"),
    path(".well-known/jwks.json", views.JwksInfoView.as_view(), name="jwks-info"),
]
