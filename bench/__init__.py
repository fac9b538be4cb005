"""Programs that measure or make things for measuring; nothing here is installed with the package."""
