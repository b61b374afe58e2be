"""Storage backends: folders, object stores and web servers behind one interface."""
