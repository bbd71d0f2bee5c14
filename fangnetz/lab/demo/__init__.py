"""`make demo`: a real host dies, and its VMs come back elsewhere, once. See story.py."""
