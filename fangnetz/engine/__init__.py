"""Observe, decide, journal, dispatch, carry out one step, write down the evidence. Knows ports, never adapters."""
