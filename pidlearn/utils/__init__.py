"""Helpers for all rooms: shapes, files, seeds, validation."""
