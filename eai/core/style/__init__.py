"""How numbers, names and figures look, in the terminal, in reports and in TensorBoard."""
