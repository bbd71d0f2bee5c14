"""`make bench`: seconds from a pulled plug or a cut link to the guest's first write elsewhere, as JSON and a table."""
