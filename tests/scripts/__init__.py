"""Scripts and tools by their command lines."""
