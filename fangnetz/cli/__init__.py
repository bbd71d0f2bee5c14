"""The command line: writes wishes, reads views. One module per noun; what starts with _ serves them all.

Never imports Celery, libvirt or a fence driver, and never acts on the cluster but by a wish. A noun's module loads what
its wishes need; what only decides, follows or draws is imported in the function that does so, once the wish is written.
"""
