"""A grid of data × noise × PEFT × method × seed in, a results store, tables and plots out."""
