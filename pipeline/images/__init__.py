"""Data sets, preprocessing and the samples that files are measured on."""
