"""The store's twin: what the Lua scripts do, on plain values. Equal to the real one by the contract tests."""
