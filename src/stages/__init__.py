"""What each script does."""
