"""JPEG bytes to uint8 pixels."""
