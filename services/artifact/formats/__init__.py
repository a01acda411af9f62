"""What files are, by their content: formats that can hold no code, and all the others."""
