"""Shadows: copies of calls whose answers no caller sees, compared with those that callers got."""
