"""Stories: what a scenario file says, read strictly, made by chance, written back, made shorter."""
