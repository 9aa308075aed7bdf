"""What a front process and its home say to each other, by what it is about."""
