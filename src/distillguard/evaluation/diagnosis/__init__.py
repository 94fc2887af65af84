"""What tells a robust model from a failed attack: measurements, and the rules that read them."""
