"""Int8 schemes, activation ranges and GPTQ."""
