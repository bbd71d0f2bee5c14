"""Rolling maintenance: hosts emptied, worked on and filled again in turn. Pure; whoever drives it looks, asks, writes.

values: what is remembered of a roll · doubts: what speaks against going on · begin: what must hold at the start ·
going: the next thing to do · words: what a person is told.

Imports nothing: who only remembers a roll (ports, the store) does not load how one is planned.
"""
