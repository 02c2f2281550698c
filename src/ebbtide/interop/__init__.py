"""Interop: the only place that knows foreign formats and services."""
