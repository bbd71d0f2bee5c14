"""`make soak-table`: every step of a failover and of a live migration, struck one by one.

cells (which blow, where) → play (do it to a lab, wait, look) → judgement (what may never be) → show (the table).
`move_…` is the same for live migrations, where others than the executor are struck, too.
"""
