"""What travels: generated messages and the codec between them and arrays."""
