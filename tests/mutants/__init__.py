"""Small sabotages of what keeps VMs safe, and the proof that the simulator notices each: `make mutants`."""
