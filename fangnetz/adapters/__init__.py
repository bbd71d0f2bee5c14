"""Reality: what the ports look like on real machines. Adapters do not know each other, nor the engine.

Each one translates its library's or tool's errors once, into the families of `core.errors`.
"""
