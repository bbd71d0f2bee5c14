"""The other world: the same engine and core on a virtual clock, against hosts, devices and a store that lie and break.

Plays the ports and decides nothing. One file and one seed make one history, byte for byte.
"""
