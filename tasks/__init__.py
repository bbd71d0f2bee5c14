"""Celery tasks: a few lines each, ids in, one engine call. Importing them needs no settings and opens nothing."""
