"""Loops that bring what is there towards what was asked for, one file per kind."""
