"""What is found out about a snapshot."""
