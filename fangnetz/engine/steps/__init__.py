"""One file a step kind: the effect, the evidence, the outcome. Claims, leases and hand-over live in `execute`."""
