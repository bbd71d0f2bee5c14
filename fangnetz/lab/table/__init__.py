"""`make soak-table`: every step of a failover, struck before its effect, after it and after its write, one by one.

cells (which blow, where) → play (do it to a lab, wait, look) → judgement (what may never be) → show (the table).
"""
