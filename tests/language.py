"""A template that uses every feature of a role, for tests of what reads it, checks it and makes objects of it."""

from __future__ import annotations

from typing import Any

import yaml

TEXT = """
slug: everything
version: 1
kind: cluster
title: {en: Everything}
params:
  type: object
  additionalProperties: false
  properties:
    label: {type: string, default: it, maxLength: 40}
    fast: {type: boolean, default: true}
secrets:
  cookie: {kind: token}
  ssh: {kind: ssh-key}
success: {role: launcher}
roles:
  - name: worker
    replicas: {min: 0, max: 8, default: 2}
    image: {default: "example/worker:1", gpu: "example/worker:1-cuda"}
    command: [serve, --number, $(POD_INDEX), --of, "${role.count}", --first, "${role.first}"]
    env:
      COOKIE: {secret: cookie}
      HOST_KEY: {secret: ssh, key: id_ed25519.pub}
      MEMORY: "${resources.memory_mib}"
      LITERAL: "$${HOME}"
    resources: {share: 0.5}
    ports:
      - {name: comm, port: 7000, endpoint: {title: Worker, scheme: tcp, path: ""}}
    volumes:
      - {mount_path: /spill, size: 20Gi}
      - {mount_path: /fast, size: 1Gi, medium: memory}
      - {secret: ssh, mount_path: /etc/ssh-keys, mode: 0400}
    files:
      /opt/conf/hosts: "${role.hosts:lines}\\n"
      /opt/conf/launcher.json: |
        {"launcher": "${roles.launcher.host}:${roles.launcher.ports.http}", "workers": ${roles.worker.addresses.comm:json}, "label": ${params.label:json}}
    readiness: {port: comm, period_seconds: 3}
    liveness: {command: [alive, --port, "${role.ports.comm}"], failure_threshold: 5}
    startup: {port: comm, failure_threshold: 60}
    stop_command: [drain, "${roles.launcher.first}"]
    stop_timeout: 2m
  - name: launcher
    run: once
    retries: 2
    image: example/launcher:1
    args: ["${roles.worker.hosts}", "${environment.name}", "${environment.team}", "${params.label}", "${params.fast}"]
    resources: {cpu: 500m, memory: 1Gi}
    ports:
      - {name: http, port: 8080}
connect:
  env: {WORKERS: "${roles.worker.addresses.comm}"}
  snippet: |
    workers = ${roles.worker.addresses.comm:json}
"""


def everything() -> dict[str, Any]:
    return yaml.safe_load(TEXT)


def changed(*path: Any, to: Any) -> dict[str, Any]:
    """The template with one value set; `to` None: taken out."""
    document = everything()
    place = document
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return document
