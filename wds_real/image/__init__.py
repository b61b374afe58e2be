"""JPEG bytes to uint8 pixels: decode, resize and crop."""
