"""`make soak`: random faults from a seed against a whole lab, while the disks and the processes are watched.

plan (a seed becomes a plan of faults) → hands (do and undo them) → truth and ear (what really runs, what the cluster
says) → laws and tally (what may never be, and figures) → records (results add up over runs).
"""
