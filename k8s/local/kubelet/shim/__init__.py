"""The small process beside each container: it isolates, starts, logs and buries it, and lives on when the cluster process dies.

Standard library only and quick to import: it is started with `python -I -S` once per container and once per exec.
"""
