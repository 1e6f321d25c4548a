"""What requests send and responses return (Pydantic)."""
