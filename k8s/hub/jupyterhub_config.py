"""Configuration of JupyterHub. It reads environment variables and nothing else; `python -m portal.ops.run hub` sets them.

    PUBLIC_URL                  address of the portal, which is the OIDC provider (issuer PUBLIC_URL/o)
    HUB_PUBLIC_URL              address of the Hub as browsers see it
    BIND, HUB_PORT              where the proxy listens for browsers
    HUB_CONNECT_HOST            address of this machine at which pods, portal and proxy reach the Hub's API; it listens there
    HUB_API_PORT                its port
    PROXY_API_PORT              port of the proxy's own API, on loopback
    KUBECONFIG                  the cluster
    INSTALL_ID                  value of the label atelier.dev/install on everything of this installation
    SERVICE_DOMAIN              the cluster's service domain
    VAR_DIR                     state is kept in VAR_DIR/hub
    OIDC_CLIENT_ID, ATELIER_OIDC_CLIENT_SECRET
    ATELIER_HUB_SERVICE_TOKEN   the portal's token at the Hub
    ATELIER_HUB_CRYPT_KEY       64 hex digits; encrypts the OIDC tokens in the Hub's database
    ATELIER_PROXY_AUTH_TOKEN    between Hub and proxy
    HUB_LOG_LEVEL               optional: DEBUG, INFO (default), WARNING
    HUB_REFRESH_SECONDS         optional: how often the portal is asked whether a user is still welcome, 60 by default

Spawned servers survive a restart of the Hub. The proxy stops and starts with it.
"""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from k8s.hub.authenticator import PortalAuthenticator
from k8s.hub.handlers import ACTIVITY_SCOPE, USERS_SCOPE
from k8s.hub.spawner import PortalSpawner

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - JupyterHub's configuration loader provides it
env = os.environ

state = Path(env["VAR_DIR"]) / "hub"
state.mkdir(mode=0o700, parents=True, exist_ok=True)
portal, public = env["PUBLIC_URL"].rstrip("/"), env["HUB_PUBLIC_URL"].rstrip("/")
connect = f"http://{env['HUB_CONNECT_HOST']}:{env['HUB_API_PORT']}"

# --- addresses and state ------------------------------------------------------
c.JupyterHub.bind_url = f"http://{env['BIND']}:{env['HUB_PORT']}"
c.JupyterHub.hub_bind_url = connect
c.JupyterHub.hub_connect_url = connect
c.JupyterHub.public_url = public + "/"
c.JupyterHub.db_url = f"sqlite:///{state / 'jupyterhub.sqlite'}"
c.JupyterHub.upgrade_db = True
c.JupyterHub.cookie_secret_file = str(state / "cookie_secret")
c.JupyterHub.cleanup_servers = False
c.JupyterHub.cleanup_proxy = True
c.JupyterHub.log_level = env.get("HUB_LOG_LEVEL", "INFO")
c.ConfigurableHTTPProxy.command = [str(Path(sys.executable).parent / "configurable-http-proxy")]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{env['PROXY_API_PORT']}"
c.ConfigurableHTTPProxy.auth_token = env["ATELIER_PROXY_AUTH_TOKEN"]
c.ConfigurableHTTPProxy.pid_file = str(state / "proxy.pid")
c.CryptKeeper.keys = [env["ATELIER_HUB_CRYPT_KEY"]]

# --- signing in ---------------------------------------------------------------
c.JupyterHub.authenticator_class = PortalAuthenticator
c.PortalAuthenticator.portal_url = portal
c.PortalAuthenticator.client_id = env["OIDC_CLIENT_ID"]
c.PortalAuthenticator.client_secret = env["ATELIER_OIDC_CLIENT_SECRET"]
c.PortalAuthenticator.oauth_callback_url = f"{public}/hub/oauth_callback"
c.PortalAuthenticator.authorize_url = f"{portal}/o/authorize/"
c.PortalAuthenticator.token_url = f"{portal}/o/token/"
c.PortalAuthenticator.userdata_url = f"{portal}/o/userinfo/"
c.PortalAuthenticator.auth_refresh_age = int(env.get("HUB_REFRESH_SECONDS", "60"))
# Coming from the portal's own sign-out one is not signed in and goes on to the sign-in page; coming from JupyterLab one is asked.
c.PortalAuthenticator.logout_redirect_url = f"{portal}/accounts/logout/"
c.JupyterHub.default_url = f"{portal}/"
c.JupyterHub.redirect_to_server = False

# --- who may do what ----------------------------------------------------------
c.JupyterHub.custom_scopes = {
    USERS_SCOPE: {"description": "Make users without further rights, and end their sessions."},
    ACTIVITY_SCOPE: {"description": "See when servers were last used, and how many of their kernels are busy."},
}
c.JupyterHub.services = [{"name": "atelier-portal", "api_token": env["ATELIER_HUB_SERVICE_TOKEN"]}]
c.JupyterHub.load_roles = [
    # In place of JupyterHub's own "user", which holds "self": users reach their servers and report activity, and that is all.
    # They cannot start, stop, alter or share a server, nor make tokens.
    {
        "name": "user",
        "description": "Reach one's own servers",
        "scopes": ["access:servers!user", "users:activity!user", "read:users:name!user", "read:users:groups!user"],
    },
    {
        "name": "atelier-portal",
        "description": "Start and stop servers for users",
        "scopes": ["servers", "list:users", "read:users:activity", USERS_SCOPE, ACTIVITY_SCOPE],
        "services": ["atelier-portal"],
    },
]

# --- servers ------------------------------------------------------------------
c.JupyterHub.spawner_class = PortalSpawner
c.PortalSpawner.install_id = env["INSTALL_ID"]
c.JupyterHub.allow_named_servers = True
c.JupyterHub.named_server_limit_per_user = 0  # quota is the portal's
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.active_server_limit = 0
# POST answers 202 at once; the worker follows the progress stream.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0}
c.Spawner.default_url = "/lab"
c.Spawner.start_timeout = 600
c.Spawner.http_timeout = 120
c.Spawner.poll_interval = 10
c.Spawner.consecutive_failure_limit = 0  # a bad template must not stop the Hub

# A cluster that starts beside the Hub writes it within the time that the imports above have taken; a spawner cannot be made without it.
deadline = time.monotonic() + 60
while not Path(env["KUBECONFIG"]).is_file():
    if time.monotonic() > deadline:
        sys.exit(f"there is no kubeconfig at {env['KUBECONFIG']}")
    time.sleep(0.05)
