"""What would happen to a real cluster: its view of today, lost hosts, and what the product makes of it."""
