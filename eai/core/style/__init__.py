"""How numbers and names are written, in the terminal, in reports, in figures and in TensorBoard."""
