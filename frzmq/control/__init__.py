"""What asks a recorder for something."""
