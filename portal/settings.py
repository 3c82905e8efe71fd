"""All settings, read from the environment (or a `.env` file) with defaults that suit `make up`.

README.md lists each variable; a test holds that table to this file.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import environs

from .logconf import configure as configure_logging
from .runtime import ROOT, secret, socket_path

env = environs.Env()
env.read_env(str(ROOT / ".env"), recurse=False)

# --- where things are -------------------------------------------------------
BASE_DIR = ROOT
VAR_DIR = Path(env.str("VAR_DIR", str(ROOT / "var"))).resolve()
BIND = env.str("BIND", "127.0.0.1")
PORT = env.int("PORT", 8000)
HUB_PORT = env.int("HUB_PORT", 8010)
HUB_API_PORT = env.int("HUB_API_PORT", HUB_PORT + 1)
PROXY_API_PORT = env.int("PROXY_API_PORT", HUB_PORT + 2)
CLUSTER_PORT = env.int("CLUSTER_PORT", HUB_PORT + 3)
# An address of this machine at which pods reach the Hub; the Hub's API then listens there.
HUB_CONNECT_HOST = env.str("HUB_CONNECT_HOST", "127.0.0.1")
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{PORT}").rstrip("/")
HUB_PUBLIC_URL = env.str("HUB_PUBLIC_URL", f"http://127.0.0.1:{HUB_PORT}").rstrip("/")
HUB_API_URL = env.str("HUB_API_URL", f"http://{HUB_CONNECT_HOST}:{HUB_API_PORT}/hub/api").rstrip("/")

# --- Kubernetes -------------------------------------------------------------
KUBECONFIG = env.str("KUBECONFIG", "")  # empty: the embedded cluster's
EMBEDDED_CLUSTER = not KUBECONFIG
KUBECONFIG_PATH = Path(KUBECONFIG or VAR_DIR / "cluster" / "kubeconfig").expanduser().resolve()
CLUSTER_NODES = env.str("CLUSTER_NODES", "")  # YAML of the embedded cluster's nodes; empty: this machine plus simulated ones
CLUSTER_RUNTIMES = env.str("CLUSTER_RUNTIMES", "")  # YAML: which image runs in which local environment
STORAGE_CLASS = env.str("STORAGE_CLASS", "")  # empty: the cluster's default
SERVICE_DOMAIN = env.str("SERVICE_DOMAIN", "svc.cluster.local")
NODE_SELECTOR = env.dict("NODE_SELECTOR", {})  # key=value,key=value: added to every pod
IMAGES = env.dict("IMAGES", {})  # template-image=image-to-use,...
IMAGE_PREFIXES = env.list("IMAGE_PREFIXES", default=[])  # what images that people name themselves have to begin with; empty: anything
HOME_SIZE = env.str("HOME_SIZE", "10Gi")
# Who may open connections to pods besides the owner's own pods: the Hub's proxy.
HUB_CIDRS = env.list("HUB_CIDRS", [f"{HUB_CONNECT_HOST}/32"])
EGRESS_CIDRS = env.list("EGRESS_CIDRS", [])  # where pods may connect to outside, none by default
LOG_ARCHIVE_BYTES = env.int("LOG_ARCHIVE_BYTES", 1024 * 1024)
SWEEP_SECONDS = env.int("SWEEP_SECONDS", 10)

# --- queue, time, approval ----------------------------------------------------
QUEUE_SYSTEM = env.str("QUEUE_SYSTEM", "auto")  # auto | builtin | kueue | volcano; auto: Kueue or Volcano where the cluster has them
OPERATORS = env.str("OPERATORS", "auto")  # auto | none; auto: those that a template names and the cluster has
KUEUE_LOCAL_QUEUE = env.str("KUEUE_LOCAL_QUEUE", "atelier")  # of every team's namespace
VOLCANO_QUEUE = env.str("VOLCANO_QUEUE", "default")
CURRENCY = env.str("CURRENCY", "")  # of the catalogue's cost_per_hour, e.g. EUR; empty: costs are not shown
TOPOLOGY_LABELS = env.dict("TOPOLOGY_LABELS", {})  # level=node label, e.g. rack=topology.kubernetes.io/rack,nvlink=...
DEFAULT_PRIORITY = env.str("DEFAULT_PRIORITY", "normal")
FAIR_SHARE_HOURS = env.int("FAIR_SHARE_HOURS", 72)  # window over which teams' shares are compared
PREEMPT_GRACE_SECONDS = env.int("PREEMPT_GRACE_SECONDS", 300)
EXPIRY_WARNING_MINUTES = env.int("EXPIRY_WARNING_MINUTES", 30)
DELETE_STOPPED_DAYS = env.int("DELETE_STOPPED_DAYS", 14)  # of environments stopped by expiry or idleness; 0: never
APPROVAL_LAPSES_HOURS = env.int("APPROVAL_LAPSES_HOURS", 72)
PROMETHEUS_URL = env.str("PROMETHEUS_URL", "").rstrip("/")
# PromQL giving one sample of accelerator use in percent per pod, with the labels `namespace` and `pod`.
PROMETHEUS_ACCELERATOR_QUERY = env.str("PROMETHEUS_ACCELERATOR_QUERY", "max by (namespace, pod) (DCGM_FI_DEV_GPU_UTIL)")

# --- secrets, made on the first run -----------------------------------------
SECRET_KEY = secret(VAR_DIR, "secret_key")
INSTALL_ID = env.str("INSTALL_ID", "") or secret(VAR_DIR, "install_id", "hex32")[:12]
HUB_SERVICE_TOKEN = secret(VAR_DIR, "hub_service_token")
OIDC_CLIENT_ID = "jupyterhub"
OIDC_CLIENT_SECRET = secret(VAR_DIR, "oidc_client_secret")
REDIS_PASSWORD = secret(VAR_DIR, "redis_password")
# Encrypts the secrets of storages. Several keys, separated by spaces: the first encrypts, all decrypt, so that a key can be replaced.
STORAGE_KEY = secret(VAR_DIR, "storage_key", "fernet")

DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "testserver"])
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "allauth",
    "allauth.account",
    "oauth2_provider",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "django_htmx",
    "channels",
    "portal.domain",
    "portal.catalogue",
    "portal.identity",
    "portal.web",
    "portal.api",
    "portal.live",
    "portal.ops",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]

ROOT_URLCONF = "portal.urls"
ASGI_APPLICATION = "portal.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ],
        },
    }
]

# --- data -------------------------------------------------------------------
DATABASES = {"default": env.dj_db_url("DATABASE_URL", f"sqlite:///{VAR_DIR / 'atelier.sqlite3'}")}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    # IMMEDIATE takes the only write lock at BEGIN, so a transaction never fails half-way with "database is locked".
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 20,
        "init_command": "PRAGMA journal_mode=WAL;PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_USER_MODEL = "domain.User"

REDIS_SOCKET = socket_path(VAR_DIR, "redis.sock")
REDIS_URL = env.str("REDIS_URL", "")  # empty: the embedded server's socket
_redis_celery = REDIS_URL or f"redis+socket://:{REDIS_PASSWORD}@{REDIS_SOCKET}?virtual_host=0"
_redis_channels = REDIS_URL or f"unix://:{REDIS_PASSWORD}@{REDIS_SOCKET}?db=0"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [_redis_channels], "prefix": "atelier"},
    }
}

# --- Celery (names are read with the CELERY_ prefix) --------------------------
CELERY_BROKER_URL = _redis_celery
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_TASK_TIME_LIMIT = 300
CELERY_TASK_SOFT_TIME_LIMIT = 240
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CONCURRENCY = env.int("WORKER_CONCURRENCY", 4)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,
    # Without these a killed worker's task came back only after ~100 s.
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "socket_timeout": 10,
    "socket_connect_timeout": 3,
    "socket_keepalive": True,
    "health_check_interval": 10,
    "retry_on_timeout": True,
}
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 3
CELERY_WORKER_ENABLE_SOFT_SHUTDOWN_ON_IDLE = True
CELERY_TASK_PUBLISH_RETRY_POLICY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
CELERY_TIMEZONE = "UTC"

# --- sign-in ----------------------------------------------------------------
AUTHENTICATION_BACKENDS = ["django.contrib.auth.backends.ModelBackend", "allauth.account.auth_backends.AuthenticationBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation." + name}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator", "NumericPasswordValidator")
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
# Cookies ignore ports: the Hub on the same host must not meet ours.
SESSION_COOKIE_NAME = "atelier_session"
CSRF_COOKIE_NAME = "atelier_csrf"
LANGUAGE_COOKIE_NAME = "atelier_language"
SESSION_COOKIE_AGE = int(timedelta(hours=12).total_seconds())
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PUBLIC_URL.startswith("https://")
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"

# --- web --------------------------------------------------------------------
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [ROOT / "locale"]
USE_I18N = USE_TZ = True
TIME_ZONE = env.str("TIME_ZONE", "UTC")
STATIC_URL = "/static/"
STATICFILES_DIRS = [ROOT / "static"]
# True: hashed, compressed names, which `manage.py collectstatic` makes. False: served from the source folders, nothing to collect and no folder for it.
STATIC_COLLECTED = env.bool("STATIC_COLLECTED", False)
STATIC_ROOT = VAR_DIR / "static" if STATIC_COLLECTED else None
WHITENOISE_USE_FINDERS = not STATIC_COLLECTED
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(VAR_DIR / "files")}},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage" if STATIC_COLLECTED else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
    "archive": {"BACKEND": "django.core.files.storage.FileSystemStorage", "OPTIONS": {"location": str(VAR_DIR / "archive")}},
}
X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "style-src": ["'self'", "'unsafe-inline'"],  # xterm.js and Tabler set style attributes
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'", "data:"],
        "connect-src": ["'self'"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'", HUB_PUBLIC_URL],
    }
}

LOG_LEVEL = env.str("LOG_LEVEL", "INFO")
LOG_JSON = env.bool("LOG_JSON", False)
LOGGING_CONFIG = None
configure_logging(LOG_LEVEL, json=LOG_JSON)

from .api.conf import REST_FRAMEWORK, SPECTACULAR_SETTINGS  # noqa: E402, F401
from .identity.conf import account_settings, provider_settings  # noqa: E402

OAUTH2_PROVIDER = provider_settings(public_url=PUBLIC_URL, rsa_key=secret(VAR_DIR, "oidc_rsa_key", "rsa"))
globals().update(account_settings())
