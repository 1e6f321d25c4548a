"""Users, login and permissions."""
