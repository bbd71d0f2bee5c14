"""What runs how often, derived from the policy's timing."""
