"""Shared by all tests: nothing but what pytest needs to find them. Fixtures live beside the tests that use them."""
