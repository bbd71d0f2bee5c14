"""`make soak-idle`: all cores saturated for minutes while nothing is wrong; nobody may be called lost."""
