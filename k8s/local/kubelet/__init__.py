"""Runs the containers of pods as processes of this machine."""
