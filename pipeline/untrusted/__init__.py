"""What strangers send: downloads, archives, pickles, arrays and images, each checked before use."""
