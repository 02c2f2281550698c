"""Chunks of a robot's actions."""
