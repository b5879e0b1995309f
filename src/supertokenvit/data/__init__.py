"""What is read, checked and augmented."""
