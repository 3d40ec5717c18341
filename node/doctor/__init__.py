"""What `farcast doctor` looks at."""
