"""Celery processes: the app, its settings, and one small module per role."""
