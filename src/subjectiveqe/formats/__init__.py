"""Files of pictures beyond their pixels: what they say of themselves, read and written again."""
